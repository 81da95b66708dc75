module feedhandler

go 1.18
