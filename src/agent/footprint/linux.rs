//! Linux: the pages of this program's file are dropped from the process, not from the system's cache.

use std::fs;
use std::ops::Range;

/// Gives back the program's code and constants; answers how many bytes of them the process may now hold less. Best effort.
pub(crate) fn release() -> usize {
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps")) else {
        return 0;
    };
    let program = program.to_string_lossy();
    maps.lines().filter_map(|line| unchanging(line, &program)).filter(drop_pages).map(|range| range.len()).sum()
}

/// The addresses of a line of `/proc/self/maps` that maps a part of `program` which is never written to: its code, or its
/// constants at the file's start. What the loader writes to and protects afterwards starts elsewhere.
fn unchanging(line: &str, program: &str) -> Option<Range<usize>> {
    let mut fields = line.splitn(6, ' ');
    let (addresses, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?.trim_start();
    let constant = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|digit| digit == b'0'));
    if path != program || !constant {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

fn drop_pages(range: &Range<usize>) -> bool {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the range is one whole mapping of our own file, private and never written to, so every page of it equals the file:
    // the kernel maps it again from there when it is touched, also while other threads run in it.
    unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_the_constants_at_the_start_of_the_programs_own_file_are_given_back() {
        let found = |line| unchanging(line, "/usr/bin/fizz");
        assert_eq!(found("1000-3000 r-xp 00400000 fe:00 12                /usr/bin/fizz"), Some(0x1000..0x3000));
        assert_eq!(found("1000-2000 r--p 00000000 fe:00 12                /usr/bin/fizz"), Some(0x1000..0x2000));
        for other in [
            "1000-2000 r--p 00e00000 fe:00 12                /usr/bin/fizz",
            "1000-2000 rw-p 00000000 fe:00 12                /usr/bin/fizz",
            "1000-2000 r-xp 00400000 fe:00 12                /usr/lib/libc.so.6",
            "1000-2000 r-xp 00000000 00:00 0                 [vdso]",
            "1000-2000 rw-p 00000000 00:00 0 ",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_runs_on_after_its_code_was_given_back() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        assert!(release() > 0, "this program's own file was found");
        let after = resident();
        assert!(after < before, "{before} kB before and {after} kB after");
        assert_eq!(format!("{:?}", (1..4).map(|n| n * n).collect::<Vec<_>>()), "[1, 4, 9]");
    }
}
