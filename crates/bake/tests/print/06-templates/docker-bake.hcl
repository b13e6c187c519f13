variable "NAMES" { default = ["x", "y"] }
target "default" {
  dockerfile-inline = <<EOT
FROM scratch
%{ for n in NAMES ~}
LABEL ${n}=1
%{ endfor ~}
%{ if length(NAMES) > 1 }# many%{ else }# one%{ endif }
EOT
  args = {
    flush = <<-EOT
      one
        two
      three ${NAMES[0]}
    EOT
    strip = "a  ${~ "b" ~}  c"
    for = jsonencode({ for i, n in NAMES : n => i if n != "x" })
    group = jsonencode({ for n in ["ab", "ac", "b"] : substr(n, 0, 1) => n... })
    splat = jsonencode([{ n = 1 }, { n = 2 }][*].n)
    attrsplat = jsonencode([{ n = { m = 1 } }].*.n.m)
    cond = true ? "yes" : 3
    nested = "${"in ${"side"}"}"
    wrap = "${1 + 1}"
    legacy = NAMES.1
    cmp = 1 < 2 && "a" != "b" || false
    unicode = "\u00e4\U0001F600"
    not = !false
    paren = (
      1 +
      2
    )
  }
  # comment
  // another
  /* and
     one more */
  labels = { (NAMES[0]) = "computed", "quoted key" = "q", "${NAMES[1]}-t" = "t" }
}
