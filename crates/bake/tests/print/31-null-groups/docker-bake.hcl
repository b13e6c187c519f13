group "default" { targets = [] }
group "none" {
  targets = null
}
target "app" { tags = [
  "app:1",
] }
