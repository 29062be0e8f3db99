//! Twin of `shaders/write_bandwidth.wgsl`. Whole words: results are equal or wrong.

/// Word `index` of what is written.
pub(crate) fn written_word(index: u32, key: u32) -> u32 {
    index ^ key
}
