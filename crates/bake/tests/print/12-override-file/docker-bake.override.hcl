variable "V" { default = "2" }
target "default" {
  args = { A = "b", B = "c" }
}
target "more" { inherits = ["default"] }
