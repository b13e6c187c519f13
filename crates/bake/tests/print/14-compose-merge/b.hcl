variable "TAG" { default = "t" }
target "web" { tags = ["x:${TAG}"] }
