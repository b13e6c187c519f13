module example.invalid/service

go 1.19
