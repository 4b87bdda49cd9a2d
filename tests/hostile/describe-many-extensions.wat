;; Brings 1,000 extensions.
;; expect: rejected: it names 1000 extensions; at most 32 are allowed
(data (i32.const 300) "\00\20\00\00" "\e8\03\00\00")
