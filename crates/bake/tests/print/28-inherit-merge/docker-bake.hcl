target "one" {
  cache-from = ["type=gha", "a"]
  annotations = ["x=1"]
  no-cache-filter = ["a"]
  secret = ["id=s,env=A"]
  attest = ["type=sbom"]
  output = ["type=image"]
}
target "two" {
  inherits = ["one"]
  cache-from = ["a", "b"]
  annotations = ["x=1", "y=2"]
  no-cache-filter = ["b"]
  secret = ["id=s,env=B", "id=t,env=A"]
  attest = ["type=sbom,generator=g", "type=provenance,disabled=true"]
  output = []
  tags = []
}
