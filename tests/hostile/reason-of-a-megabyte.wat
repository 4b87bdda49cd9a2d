;; Drops the event, with a megabyte of zeros as the reason.
;; expect: dropped
(memory $memory 32)
(data (i32.const 516) "\01\00\00\00" "\00\00\01\00" "\00\00\10\00")
