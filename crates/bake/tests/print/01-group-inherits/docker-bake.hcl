group "default" { targets = ["app", "docs"] }
group "all" {
  description = "everything"
  targets = ["default", "tool"]
}
target "_base" {
  args = { GO = "1.22", EMPTY = "" }
  labels = { "org.example.by" = "us" }
  platforms = ["linux/amd64"]
}
target "app" {
  inherits = ["_base"]
  context = "./app/../app"
  tags = ["example.org/app:1", "example.org/app:1", ""]
  args = { GO = "1.23" }
}
target "docs" {
  inherits = ["_base", "app"]
  target = "docs"
  output = ["type=local,dest=out"]
}
target "tool" {
  description = "a tool <for> us & them"
  dockerfile = "tool.Dockerfile"
  cache-from = ["example.org/cache", "type=local,src=c"]
  cache-to = [{ type = "registry", ref = "example.org/cache", mode = "max" }]
}
