group "default" { targets = ["x"] }
target "x" { args = { a = 1, b = "two" } }
