target "default" { args = { B = "1" } }
