-- luacheck's settings; ./dev lint runs it.
std = "luajit"
max_line_length = 110
exclude_files = { "build*/", ".cache/" }
files["spec"] = { std = "luajit+busted" }
files["**/*_spec.lua"] = { std = "luajit+busted" }
files["bench/conf/haproxy-hook.lua"] = { read_globals = { "core" } }
files[".busted"] = { std = "luajit" }
