;; Imports a function that nobody offers.
;; expect: rejected: env
(import "env" "system" (func $system (param i32) (result i32)))
