//! The demo's job writes its pictures with an encoder of its own; here they are read by somebody else's code.

#[expect(
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "part of the demo's job, which is a program of its own"
)]
#[path = "../assets/demo-job/png.rs"]
mod png;

use std::io::Read;

/// The number in the first four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes[..4].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Reads a PNG as the specification has it: checks every checksum and hands back width, height and pixels.
fn decode(file: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("signature");
    let (mut header, mut data, mut ended) = (Vec::new(), Vec::new(), false);
    while !rest.is_empty() {
        assert!(!ended, "nothing comes after IEND");
        let size = number(rest);
        let (kind, body) = (&rest[4..8], &rest[8..8 + size]);
        let mut crc = flate2::Crc::new();
        crc.update(&rest[4..8 + size]);
        assert_eq!(rest[8 + size..12 + size], crc.sum().to_be_bytes(), "checksum of {kind:?}");
        match kind {
            b"IHDR" => header = body.to_vec(),
            b"IDAT" => data.extend_from_slice(body),
            b"IEND" => ended = true,
            other => panic!("unexpected chunk {other:?}"),
        }
        rest = &rest[12 + size..];
    }
    assert!(ended, "IEND is there");
    assert_eq!(header[8..], [8, 2, 0, 0, 0], "8-bit RGB");
    let width = number(&header);
    let height = number(&header[4..]);
    let mut rows = Vec::new();
    flate2::read::ZlibDecoder::new(data.as_slice()).read_to_end(&mut rows).expect("zlib stream");
    assert_eq!(rows.len(), height * (1 + width * 3));
    let pixels = rows.chunks_exact(1 + width * 3).flat_map(|row| {
        assert_eq!(row[0], 0, "no filter");
        &row[1..]
    });
    (width, height, pixels.copied().collect())
}

#[test]
fn a_picture_survives_the_way_through_png() {
    // Larger than one stored block, and no multiple of it.
    let (width, height) = (257, 131);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i: usize| u8::try_from(i * 31 % 251).unwrap()).collect();
    assert_eq!(decode(&png::encode(width, height, &pixels)), (width, height, pixels));
}

#[test]
fn the_smallest_picture_is_a_picture() {
    assert_eq!(decode(&png::encode(1, 1, &[1, 2, 3])), (1, 1, vec![1, 2, 3]));
}

#[cfg(all(target_os = "linux", feature = "coordinator"))]
#[test]
fn the_picture_does_not_depend_on_the_number_of_threads() {
    use fizz::cli::demo::image;
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("render");
    std::fs::write(&program, image::program().unwrap().expect("this build made the program")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let picture = |threads: &str| {
        let file = folder.path().join(format!("{threads}.png"));
        let output = std::process::Command::new(&program)
            .args(["--width", "64", "--height", "40", "--samples", "2", "--threads", threads, "--output"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let words = String::from_utf8(output.stdout).unwrap();
        assert!(words.contains("rendered 100 %") && words.contains("done: "), "{words}");
        std::fs::read(file).unwrap()
    };
    let one = picture("1");
    assert_eq!(one, picture("5"));
    let (width, height, pixels) = decode(&one);
    assert_eq!((width, height), (64, 40));
    assert!(pixels.iter().any(|p| *p > 200) && pixels.iter().any(|p| *p < 40), "neither black nor white");
}

#[cfg(all(target_os = "linux", feature = "coordinator"))]
#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn the_image_is_loaded_without_a_registry_and_removed_without_a_trace() {
    use fizz::cli::demo::image;
    use fizz::runtime::docker::DockerRuntime;

    let docker = DockerRuntime::connect(None).await.unwrap();
    let tag = format!("fizz-demo:test-{}", std::process::id());
    let program = image::program().unwrap().expect("this build made the program");
    let archive = image::archive(&program, docker.architecture(), &tag).unwrap();
    let id = docker.import_image(archive.clone(), &tag).await.unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(docker.import_image(archive, &tag).await.unwrap(), id, "a second load finds the same image");
    let output = std::process::Command::new("docker").args(["run", "--rm", &id, "--help"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    docker.remove_image(&tag).await.unwrap();
    docker.remove_image(&tag).await.unwrap();
    assert!(output.status.success() && words.contains("usage: render"), "{words}");
    let left = std::process::Command::new("docker").args(["image", "inspect", &tag]).output().unwrap();
    assert!(!left.status.success(), "the image is gone");
}
