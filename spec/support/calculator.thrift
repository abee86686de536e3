// What the specs of Thrift call, from Python and C++.
exception Overflow {
   1: string why
}

service Calculator {
   i32 add(1: i32 a, 2: i32 b) throws (1: Overflow error),
   binary echo(1: binary bytes),
   i32 slow(1: i32 milliseconds),
   i32 broken(),
   oneway void note(1: string text),
   list<string> notes()
}
