target "default" {
  output = [{ type = "image", name = "a,b", push = true }, "dir", { type = "local", dest = "x" }, "type=image,\"name=a,b\",push=true"]
  cache-from = ["a,b", { type = "gha", scope = "s" }, "type=registry,ref=a"]
  secret = [{ id = "x", env = "E" }, "type=env,id=y,src=Z", { id = "f", src = "file" }]
  attest = ["type=provenance,mode=max", { type = "sbom", disabled = true }]
  resources = { memory = "512m", cpu-shares = 10, cpuset-cpus = "0-1" }
  extra-hosts = { h = "1.1.1.1" }
  annotations = ["index:a=b"]
  entitlements = ["network.host"]
  ulimits = ["nofile=1:2"]
  shm-size = "64m"
  network = "none"
  call = "check"
  description = "d"
  unknown-attribute = "x"
}
