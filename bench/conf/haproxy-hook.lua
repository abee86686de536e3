-- A request's header is kept in a variable: in HAProxy a response action cannot see it any more.
core.register_action("hook", { "http-res" }, function(txn)
   txn.http:res_set_header("X-First", txn:get_var("txn.bench"))
   txn.http:res_set_header("X-Second", "constant")
end)
