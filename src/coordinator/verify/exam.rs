//! Marks an answer.

use crate::proof::freivalds::{OpenedRow, Question, Reply, check};
use crate::proof::generator::Seed;
use crate::proof::{Size, merkle};
use crate::wire::challenge::{Answer, Device, Opening, Part, RevealedRow};
use crate::wire::{ChallengeId, Digest, Nonce, PublicKey};

/// Rows opened of every part.
pub const OPENED: usize = 24;

/// Everything that an answer is held against.
#[derive(Debug, Clone)]
pub struct Exam {
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// The key of the node.
    pub node: PublicKey,
    /// What nobody knew before.
    pub nonce: Nonce,
    /// What was asked.
    pub parts: Vec<Part>,
    /// What the node committed to.
    pub roots: Vec<Digest>,
    /// What it was told to open.
    pub opening: Opening,
}

impl Exam {
    /// Whether the answers are right.
    ///
    /// # Errors
    /// What is wrong, half a sentence for people.
    pub fn mark(&self, answers: &[Answer]) -> Result<(), String> {
        if answers.len() != self.parts.len() || self.roots.len() != self.parts.len() {
            return Err(format!("{} answers came for {} devices", answers.len(), self.parts.len()));
        }
        let asked = self.parts.iter().zip(&self.roots).zip(&self.opening.rows).zip(answers);
        for (number, (((part, root), rows), answer)) in (0u32..).zip(asked) {
            let seed = Seed::derive(&self.nonce, &self.node, self.challenge_id, number);
            self.mark_part(part, root, rows, &seed, answer)
                .map_err(|what| format!("{}: {what}", name(&part.device)))?;
        }
        Ok(())
    }

    fn mark_part(
        &self,
        part: &Part,
        root: &Digest,
        opened: &[u32],
        seed: &Seed,
        answer: &Answer,
    ) -> Result<(), String> {
        let size = Size::try_from(part.size).map_err(|error| error.to_string())?;
        let product = numbers(&answer.product.0, size).ok_or("the product has the wrong length")?;
        let rows: Vec<OpenedRow> = answer
            .rows
            .iter()
            .map(|row| row_of(row, size))
            .collect::<Option<_>>()
            .ok_or("a row has the wrong length")?;
        let vector_seed = self.opening.vector_seed.as_bytes();
        check(&Question { seed, size, root, vector_seed, opened }, &Reply { product: &product, rows: &rows })
            .map_err(|wrong| wrong.to_string())
    }
}

fn name(device: &Device) -> &str {
    match device {
        Device::Cpu => "the processor",
        Device::Gpu { name, .. } => name,
        Device::Unknown => "a device",
    }
}

/// Nothing is taken apart that has not the length it should have.
fn numbers(bytes: &[u8], size: Size) -> Option<Vec<u64>> {
    let (words, rest) = bytes.as_chunks::<8>();
    (rest.is_empty() && words.len() == size.rows())
        .then(|| words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

fn row_of(row: &RevealedRow, size: Size) -> Option<OpenedRow> {
    let (words, rest) = row.elements.0.as_chunks::<4>();
    let fits = rest.is_empty() && words.len() == size.rows() && row.path.len() == merkle::path_len(size);
    fits.then(|| OpenedRow {
        elements: words.iter().map(|word| i32::from_be_bytes(*word)).collect(),
        path: row.path.clone(),
    })
}
