target "app" {
  name = "app-${os}-${replace(ver, ".", "-")}"
  matrix = {
    os = ["alpine", "debian"]
    ver = ["1.0", "2.0"]
  }
  args = { OS = os, VERSION = ver }
  tags = ["example.org/app:${ver}-${os}"]
}
target "other" {
  matrix = { item = [{ n = "a", v = 1 }, { n = "b", v = 2 }] }
  name = item.n
  args = { V = item.v }
}
group "default" { targets = ["other"] }
