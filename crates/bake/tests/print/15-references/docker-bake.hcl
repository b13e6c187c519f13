variable "V" { default = "${W}-v" }
variable "W" { default = "w" }
target "a" {
  args = { X = V }
  context = "dir"
  tags = ["a"]
  labels = { own = target.a.args.X }
}
target "b" {
  args = { Y = "${target.a.args.X}!", C = target.a.context }
  tags = [for t in target.a.tags : "${t}-b"]
  dockerfile = target.b.args.C
}
