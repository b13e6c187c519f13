variable "RELEASE" { default = "" }
variable "VERSIONS" { default = "1.2.3" }
target "default" {
  tags = concat(
    ["x:${VERSIONS}"],
    RELEASE != "" ? ["x:latest", "x:${join(".", slice(split(".", VERSIONS), 0, 2))}"] : [],
  )
  platforms = RELEASE == "" ? ["local"] : ["linux/amd64", "linux/arm64"]
  cache-to = RELEASE == "" ? [] : ["type=inline"]
}
