target "default" {
  network = "host"
  entitlements = ["network.host", "security.insecure"]
}
