target "a" {
  args = { X = "1" }
  tags = ["t1"]
  output = ["type=image"]
  secret = ["id=s,src=file"]
  platforms = ["linux/amd64"]
}
target "ab" { inherits = ["a"] }
