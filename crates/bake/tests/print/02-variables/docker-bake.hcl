variable "TAG" { default = "latest" }
variable "N" { default = 3 }
variable "ON" { default = false }
variable "NOTHING" {}
variable "LIST" { default = ["a", "b"] }
prefix = "example.org/${TAG}"
target "default" {
  tags = ["${prefix}:${N + 1}", NOTHING == "" ? "none" : "some", ON ? "on" : "off"]
  args = {
    LIST = join(",", LIST)
    QUOTED = "say \"${TAG}\"\t$${literal} %%{x}"
    SUM = N * 2.5
    NULL = null
    BOOL = ON
    NEG = -N
    MOD = 7 % N
  }
  no-cache = ON
}
