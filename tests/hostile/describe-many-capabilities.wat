;; Asks for 1,000 capabilities.
;; expect: rejected: it names 1000 capabilities; at most 32 are allowed
(data (i32.const 292) "\00\20\00\00" "\e8\03\00\00")
