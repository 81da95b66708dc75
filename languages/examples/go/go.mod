module subscribe

go 1.18

require feedhandler v0.0.0

replace feedhandler => ../../go
