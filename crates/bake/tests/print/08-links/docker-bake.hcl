target "base" {
  output = ["type=image"]
  tags = ["base"]
  entitlements = ["security.insecure"]
}
target "app" {
  contexts = { base = "target:base", src = "./src", gone = "" }
}
target "top" { contexts = { app = "target:app" } }
