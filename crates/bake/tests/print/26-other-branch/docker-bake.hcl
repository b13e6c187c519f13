variable "NAME" { default = null }
target "default" {
  tags = [NAME != null && NAME != "" ? "x:${NAME}" : "x:local"]
  args = { B = NAME == null || NAME.x ? "t" : "f" }
}
