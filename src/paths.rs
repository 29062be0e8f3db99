//! Where Fizz keeps its files on this machine.
