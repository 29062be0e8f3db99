//! The isolation probe: tries to reach addresses from inside a container and says which of them answered.
//!
//! `probe MILLISECONDS WORD TARGET...` with targets `t4:HEX-ADDRESS:PORT` (TCP over IPv4), `u4` (UDP), `t6`, `u6`. It also
//! listens on TCP port 4242 while it runs, to be reached itself. At the end it writes a line per target, in their order:
//! `open` (it answered), `refused` (something answered that nothing listens there), `silent`, or `error N`.
//!
//! `probe read PATH...` reads files instead: a line per path, `=` and the file's first line, or `-` where there is none. That is how
//! a container's limits are seen from inside of it.
//!
//! It needs nothing: no standard library, no file of its own, no privilege. All targets are tried at once, so that it takes as long as
//! the slowest answer, and never longer than it was given.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const OPENAT: usize = 257;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDTO: usize = 44;
    pub const RECVFROM: usize = 45;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const GETSOCKOPT: usize = 55;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const PPOLL: usize = 271;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const OPENAT: usize = 56;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PPOLL: usize = 73;
    pub const EXIT_GROUP: usize = 94;
    pub const CLOCK_GETTIME: usize = 113;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const CONNECT: usize = 203;
    pub const SENDTO: usize = 206;
    pub const RECVFROM: usize = 207;
    pub const GETSOCKOPT: usize = 209;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {begin}", begin = sym begin);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {begin}", begin = sym begin);

/// A system call; a negative result is an error number.
#[cfg(target_arch = "x86_64")]
unsafe fn call(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call; a negative result is an error number.
#[cfg(target_arch = "aarch64")]
unsafe fn call(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("svc 0", in("x8") n, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}

const TARGETS_MAX: usize = 256;
const LISTEN_PORT: u16 = 4242;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const STREAM: usize = 1;
const DATAGRAM: usize = 2;
const NONBLOCK: usize = 0o4000;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
const EINPROGRESS: isize = 115;
const ECONNREFUSED: isize = 111;
const EAGAIN: isize = 11;

#[repr(C)]
#[derive(Clone, Copy)]
struct Poll {
    fd: i32,
    events: i16,
    found: i16,
}

#[repr(C)]
struct Time {
    seconds: i64,
    nanos: i64,
}

/// What became of a target: 0 nothing yet, 1 open, minus an error number otherwise.
type Fate = isize;

struct Targets {
    polls: [Poll; TARGETS_MAX],
    fates: [Fate; TARGETS_MAX],
    datagram: [bool; TARGETS_MAX],
    count: usize,
}

/// `stack` is where the kernel left the number of arguments and the pointers to them.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    let (count, arguments) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
    let argument = |index: usize| unsafe { text(if index < count { *arguments.add(index) } else { core::ptr::null() }) };
    if let [b'r', ..] = argument(1) {
        let mut index = 2;
        while index < count {
            say_first_line(argument(index));
            index += 1;
        }
        leave();
    }
    let (time, word) = (decimal(argument(1)), argument(2));
    listen();
    let mut targets = Targets {
        polls: [Poll { fd: -1, events: 0, found: 0 }; TARGETS_MAX],
        fates: [0; TARGETS_MAX],
        datagram: [false; TARGETS_MAX],
        count: 0,
    };
    let mut index = 3;
    while index < count && targets.count < TARGETS_MAX {
        targets.open(argument(index), word);
        index += 1;
    }
    targets.wait(now() + time as i64);
    let mut index = 0;
    while index < targets.count {
        say(targets.fates[index]);
        index += 1;
    }
    leave();
}

fn leave() -> ! {
    unsafe { call(number::EXIT_GROUP, 0, 0, 0, 0, 0, 0) };
    loop {}
}

/// `path` is an argument, so a zero follows it.
fn say_first_line(path: &[u8]) {
    // AT_FDCWD, O_RDONLY.
    let fd = unsafe { call(number::OPENAT, -100_isize as usize, path.as_ptr() as usize, 0, 0, 0, 0) };
    let mut line = [0_u8; 128];
    let read = if fd < 0 {
        fd
    } else {
        unsafe { call(number::READ, fd as usize, line.as_mut_ptr() as usize, line.len(), 0, 0, 0) }
    };
    if read < 0 {
        write(b"-\n");
        return;
    }
    let mut length = 0;
    while length < read as usize && line.get(length).is_some_and(|byte| *byte != b'\n') {
        length += 1;
    }
    write(b"=");
    write(line.get(..length).unwrap_or_default());
    write(b"\n");
}

impl Targets {
    fn open(&mut self, target: &[u8], word: &[u8]) {
        let at = self.count;
        self.count += 1;
        let mut address = [0_u8; 28];
        let Some((length, datagram)) = parse(target, &mut address) else {
            self.fates[at] = -22;
            return;
        };
        let family = u16::from_ne_bytes([address[0], address[1]]) as usize;
        let kind = if datagram { DATAGRAM } else { STREAM } | NONBLOCK;
        let fd = unsafe { call(number::SOCKET, family, kind, 0, 0, 0, 0) };
        if fd < 0 {
            self.fates[at] = fd;
            return;
        }
        self.polls[at] = Poll { fd: fd as i32, events: if datagram { POLLIN } else { POLLOUT }, found: 0 };
        self.datagram[at] = datagram;
        let fd = fd as usize;
        let done = unsafe { call(number::CONNECT, fd, address.as_ptr() as usize, length, 0, 0, 0) };
        if done < 0 && done != -EINPROGRESS {
            self.fates[at] = done;
        } else if datagram {
            let sent = unsafe { call(number::SENDTO, fd, word.as_ptr() as usize, word.len(), 0, 0, 0) };
            if sent < 0 {
                self.fates[at] = sent;
            }
        } else if done == 0 {
            self.fates[at] = 1;
        }
    }

    fn wait(&mut self, deadline: i64) {
        loop {
            let mut index = 0;
            while index < self.count {
                if self.fates[index] != 0 {
                    self.polls[index].fd = -1;
                }
                index += 1;
            }
            let left = deadline - now();
            // It goes on listening until its time is up, whatever its own targets say.
            if left <= 0 {
                return;
            }
            let time = Time { seconds: left / 1000, nanos: left % 1000 * 1_000_000 };
            let polls = self.polls.as_mut_ptr() as usize;
            unsafe { call(number::PPOLL, polls, self.count, &raw const time as usize, 0, 8, 0) };
            let mut index = 0;
            while index < self.count {
                if self.fates[index] == 0 && self.polls[index].found != 0 {
                    self.fates[index] = self.look(index);
                }
                index += 1;
            }
        }
    }

    fn look(&self, index: usize) -> Fate {
        let fd = self.polls[index].fd as usize;
        if self.datagram[index] {
            let mut answer = [0_u8; 64];
            let read = unsafe { call(number::RECVFROM, fd, answer.as_mut_ptr() as usize, answer.len(), 0, 0, 0) };
            return if read >= 0 { 1 } else if read == -EAGAIN { 0 } else { read };
        }
        let (mut error, mut length) = (0_i32, 4_u32);
        let (error_at, length_at) = (&raw mut error as usize, &raw mut length as usize);
        // SOL_SOCKET, SO_ERROR.
        unsafe { call(number::GETSOCKOPT, fd, 1, 4, error_at, length_at, 0) };
        if error == 0 { 1 } else { -(error as isize) }
    }
}

fn listen() {
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    address[2..4].copy_from_slice(&LISTEN_PORT.to_be_bytes());
    unsafe {
        let fd = call(number::SOCKET, AF_INET as usize, STREAM, 0, 0, 0, 0);
        if fd >= 0 {
            call(number::BIND, fd as usize, address.as_ptr() as usize, address.len(), 0, 0, 0);
            call(number::LISTEN, fd as usize, 16, 0, 0, 0, 0);
        }
    }
}

/// Fills in a socket address; answers its length and whether it is for UDP.
fn parse(target: &[u8], address: &mut [u8; 28]) -> Option<(usize, bool)> {
    let datagram = match *target.first()? {
        b't' => false,
        b'u' => true,
        _ => return None,
    };
    let (family, bytes, offset, length) = match *target.get(1)? {
        b'4' => (AF_INET, 4, 4, 16),
        b'6' => (AF_INET6, 16, 8, 28),
        _ => return None,
    };
    let hex = target.get(3..3 + 2 * bytes)?;
    let port = decimal(target.get(4 + 2 * bytes..)?) as u16;
    address.get_mut(..2)?.copy_from_slice(&family.to_ne_bytes());
    address.get_mut(2..4)?.copy_from_slice(&port.to_be_bytes());
    let mut index = 0;
    while index < bytes {
        let byte = digit(*hex.get(2 * index)?)? << 4 | digit(*hex.get(2 * index + 1)?)?;
        *address.get_mut(offset + index)? = byte;
        index += 1;
    }
    Some((length, datagram))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn decimal(text: &[u8]) -> u32 {
    let mut value = 0_u32;
    for byte in text {
        value = value.wrapping_mul(10).wrapping_add(u32::from(byte.wrapping_sub(b'0')));
    }
    value
}

/// Milliseconds of the machine's steady clock.
fn now() -> i64 {
    let mut time = Time { seconds: 0, nanos: 0 };
    unsafe { call(number::CLOCK_GETTIME, 1, &raw mut time as usize, 0, 0, 0, 0) };
    time.seconds * 1000 + time.nanos / 1_000_000
}

fn say(fate: Fate) {
    match fate {
        1 => write(b"open\n"),
        0 => write(b"silent\n"),
        fate if fate == -ECONNREFUSED => write(b"refused\n"),
        fate => {
            let mut line = *b"error 000\n";
            let mut number = fate.unsigned_abs();
            let mut at = 8;
            while at > 5 {
                line[at] = b'0' + (number % 10) as u8;
                number /= 10;
                at -= 1;
            }
            write(&line);
        }
    }
}

fn write(bytes: &[u8]) {
    unsafe { call(number::WRITE, 1, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0) };
}

/// An argument without its final zero; nothing for a null pointer.
unsafe fn text<'a>(start: *const u8) -> &'a [u8] {
    let mut length = 0;
    unsafe {
        // Volatile, lest the compiler makes a call to a C library of it.
        while !start.is_null() && start.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(if start.is_null() { core::ptr::NonNull::dangling().as_ptr() } else { start }, length)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe { call(number::EXIT_GROUP, 101, 0, 0, 0, 0, 0) };
    loop {}
}

/// Named by the core library, and never called by a program that aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// What the compiler takes for granted. Volatile, lest it makes calls to themselves of them.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut at = 0;
    while at < count {
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        at += 1;
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    let mut at = 0;
    while at < count {
        unsafe { to.add(at).write_volatile(value as u8) };
        at += 1;
    }
    to
}
