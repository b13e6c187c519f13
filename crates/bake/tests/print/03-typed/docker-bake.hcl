variable "LIST" {
  type = list(string)
  default = ["x"]
}
variable "NUMS" { type = set(number) }
variable "MAP" {
  type = map(string)
  default = { a = 1 }
}
variable "OBJ" {
  type = object({ name = string, size = optional(number) })
  default = { name = "n" }
}
variable "PORT" {
  type = number
  default = "80"
  validation {
    condition = PORT > 10
    error_message = "too low"
  }
}
target "default" {
  args = {
    list = jsonencode(LIST)
    nums = jsonencode(NUMS)
    map = jsonencode(MAP)
    obj = jsonencode(OBJ)
    port = PORT
  }
}
