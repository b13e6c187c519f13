target "a" {}
target "b" { output = ["type=image,name=x"] }
target "c" { output = ["type=docker"] }
target "d" { output = ["type=local,dest=o"] }
