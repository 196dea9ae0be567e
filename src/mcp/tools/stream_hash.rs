//! `stream_hash`: the SHA-256 of a generated stream. Real work for a processor, with nothing of the machine's in it.
//!
//! The stream is that of SplitMix64 from the seed, each 64-bit output as 8 bytes, least significant first; so anyone
//! can check the hash.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Arguments, ToolHandler, ToolOutput, Work};
use crate::mcp::{CallContext, CallError};
use crate::protocol::mcp::content::Content;
use crate::protocol::mcp::tool::{ToolCapabilities, ToolMetadata, ToolSpec, object_schema};

/// 4 GiB.
const BYTES_MAX: u64 = 4 << 30;
/// The largest whole number that every JSON implementation reads exactly.
const SEED_MAX: u64 = (1 << 53) - 1;
/// Bytes hashed between two looks at the cancellation.
const CHUNK_BYTES: usize = 64 << 10;
const EXECUTION_MS_MAX: u64 = 120_000;

/// Hashes a stream of up to 4 GiB.
#[derive(Clone, Copy, Debug)]
pub struct StreamHash;

impl ToolHandler for StreamHash {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "bytes": {
                "type": "integer", "description": "Length of the stream in bytes", "minimum": 0, "maximum": BYTES_MAX
            },
            "seed": {
                "type": "integer", "description": "Which stream", "minimum": 0, "maximum": SEED_MAX, "default": 0
            }
        });
        let Value::Object(properties) = properties else { unreachable!("written above as an object") };
        ToolSpec {
            description: "Generates the SplitMix64 stream of a seed (64-bit outputs, little endian), without storing \
                          it, and returns its SHA-256."
                .to_owned(),
            input_schema: object_schema(properties, &["bytes"]),
            capabilities: ToolCapabilities {
                supports_streaming: true,
                max_execution_time: EXECUTION_MS_MAX,
                ..ToolCapabilities::default()
            },
            metadata: ToolMetadata::new("compute", &["hash", "progress"], EXECUTION_MS_MAX),
            ..ToolSpec::new("stream_hash")
        }
    }

    fn prepare(&self, arguments: Arguments<'_>) -> Result<Work, CallError> {
        let bytes = arguments.integer("bytes", 0..=BYTES_MAX, None)?;
        let seed = arguments.integer("seed", 0..=SEED_MAX, Some(0))?;
        Ok(Work::new(move |context| async move {
            let digest = context.on_thread(move |context| hash(bytes, seed, context)).await?;
            let result = json!({"algorithm": "sha-256", "bytes": bytes, "seed": seed, "digest": digest});
            Ok(ToolOutput {
                content: vec![Content::json(&result)],
                usage: BTreeMap::from([("bytesHashed", bytes)]),
                ..ToolOutput::default()
            })
        }))
    }
}

/// The digest in lower-case hex. Reports each hundredth.
fn hash(bytes: u64, seed: u64, context: &CallContext) -> Result<String, CallError> {
    let mut hasher = Sha256::new();
    let mut state = seed;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut done, mut told_percent) = (0, 0);
    while done < bytes {
        context.check()?;
        let wanted = usize::try_from(bytes - done).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        for block in chunk[..wanted].chunks_mut(8) {
            block.copy_from_slice(&splitmix64(&mut state).to_le_bytes()[..block.len()]);
        }
        hasher.update(&chunk[..wanted]);
        done += wanted as u64;

        let percent = done * 100 / bytes;
        if percent > told_percent {
            told_percent = percent;
            context.progress(as_f64(done), Some(as_f64(bytes)), Some(format!("{percent} %")));
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::{call, context, context_cancelled_after};
    use super::*;

    /// Digests that Python's hashlib gives for the stream as the module's first lines describe it.
    #[tokio::test]
    async fn digests_are_those_of_the_documented_stream() {
        let cases = [
            (0, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (0, 8, "ce31a0874129872dc43ee51174eb9042517a915fae0065f2789bdb9e82c229ca"),
            (0, 13, "402387c3198674ec4821c567708bc2a5e99e142b16ca24f3eb40f9c7b5c78ef5"),
            (42, 1_000_003, "b71eda69caa1ed912d871d633b9fe8a434e5567ee87689264a610a06a31ad66f"),
            (SEED_MAX, 8, "a82fab48d4fdf4c386655ea907a3fd4feec2d8f4fd482a4938a9713ded44c5b4"),
        ];

        for (seed, bytes, digest) in cases {
            let output = call(StreamHash, json!({"seed": seed, "bytes": bytes}), context().0).await.expect("hashes");

            let expected = json!({"algorithm": "sha-256", "bytes": bytes, "seed": seed, "digest": digest});
            assert_eq!(output.content, [Content::json(&expected)]);
        }
    }

    #[tokio::test]
    async fn progress_grows_to_the_whole_in_at_most_a_hundred_reports() {
        let (context, reports) = context();

        call(StreamHash, json!({"bytes": 8_000_000}), context).await.expect("hashes");

        let reports = reports.all();
        assert!(reports.is_sorted_by(|a, b| a.progress < b.progress));
        assert!((50..=100).contains(&reports.len()), "{}", reports.len());
        assert_eq!(reports.last().map(|report| report.progress), Some(8_000_000.0));
    }

    #[tokio::test]
    async fn a_cancelled_call_stops_soon() {
        let (context, reports) = context_cancelled_after(1);

        let outcome = call(StreamHash, json!({"bytes": BYTES_MAX}), context).await;

        assert_eq!(outcome, Err(CallError::Cancelled));
        assert_eq!(reports.all().len(), 1);
    }

    #[tokio::test]
    async fn a_length_is_required_and_bounded() {
        for arguments in [json!({}), json!({"bytes": BYTES_MAX + 1}), json!({"bytes": 1, "seed": -1})] {
            let outcome = call(StreamHash, arguments, context().0).await;

            assert!(matches!(outcome, Err(CallError::InvalidArguments(_))), "{outcome:?}");
        }
    }
}
