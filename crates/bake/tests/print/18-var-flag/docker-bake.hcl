variable "A" { default = "x" }
variable "B" { type = list(string) }
variable "C" { type = object({ n = number }) }
target "default" { args = { A = A, B = jsonencode(B), C = C.n } }
