variable "X" { default = null }
variable "Y" {
  type = string
  default = null
}
target "default" {
  args = { X = X == null ? "none" : X, Y = Y }
  target = Y
  tags = [for t in ["", "a"] : t]
  dockerfile = ""
}
