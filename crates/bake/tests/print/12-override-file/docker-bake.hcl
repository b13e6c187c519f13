variable "V" { default = "1" }
target "default" {
  args = { V = V, A = "a" }
  tags = ["t:${V}"]
}
