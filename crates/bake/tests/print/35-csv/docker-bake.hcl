# Comma-separated values wherever a definition takes them.
variable "NAMES" {
  type = list(string)
}
variable "PAIRS" {
  type = map(string)
}
variable "UNIQUE" {
  type = set(number)
}
variable "BOTH" {
  type = tuple([string, bool])
}

target "default" {
  args = {
    names  = jsonencode(NAMES)
    pairs  = jsonencode(PAIRS)
    unique = jsonencode(UNIQUE)
    both   = jsonencode(BOTH)
    rows   = jsonencode(csvdecode("\"a\",\"b c\"\r\n1,\"two\nlines\"\n3,x\n"))
  }
  output     = ["type=local,\"dest=a,b\"", "\"type=tar\",dest=x.tar", "type=image,\"name=h/a,h/b\""]
  cache-from = ["\"user/app\",user/other", "type=local,\"src=a,b\"", "\"type=registry,ref=x\""]
  secret     = ["id=a,\"env=A\""]
  attest     = ["type=provenance,\"builder-id=https://example.test/a,b\""]
}
