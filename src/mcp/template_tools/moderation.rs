//! What `content_moderation` runs on: a text and an image are looked at from three sides, and what was found is put
//! together.
//!
//! Every analyzer gives a [`Finding`], so that moderation_aggregator takes those of other tools too. The numbers are
//! rules of thumb: what is flagged is for a person to see.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::image::ImageFormat;
use super::parameters::Fraction;
use super::text_signals::{Signals, ramp, strength};
use super::{About, Effect, described, kind};
use crate::mcp::{CallError, Tool};

/// Bytes of a text that is looked at: a longer one is refused, since what is not looked at may be what matters.
const TEXT_BYTES_MAX: usize = 65_536;
/// Findings that are put together.
const FINDINGS_MAX: usize = 100;
/// Score from which an image is flagged, and a finding that does not say so itself.
const FLAGGED_FROM: f64 = 0.5;
/// Signals weaker than this in the score are no flags.
const FLAG_FROM: f64 = 0.15;
/// Pixels of an image from which on its decoding may be meant to exhaust whoever does it.
const PIXELS_MAX: u64 = 50_000_000;
/// Characters of a content type.
const CONTENT_TYPE_CHARS_MAX: u32 = 100;

/// Fields of a step's result that hold text for people.
const TEXT_FIELDS: [&str; 6] = ["title", "text", "content", "message", "body", "caption"];

const CATEGORY: &str = "content_management";

/// What an analyzer found.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
struct Finding {
    /// Whether there was something to look at.
    examined: bool,
    /// From 0 to 1: how much speaks against it.
    score: f64,
    /// Whether that is too much.
    flagged: bool,
    /// What speaks against it.
    flags: Vec<&'static str>,
}

impl Finding {
    /// Puts signals together, each with its strength and what it counts for: any one may suffice, and several add to
    /// each other.
    fn of(signals: &[(&'static str, f64, f64)], flagged_from: f64) -> Self {
        let score = 1.0 - signals.iter().map(|(_, strength, weight)| 1.0 - strength * weight).product::<f64>();
        let flags =
            signals.iter().filter(|(_, strength, weight)| strength * weight >= FLAG_FROM).map(|(name, ..)| *name);
        let score = (score * 1_000.0).round() / 1_000.0;
        Finding { examined: true, score, flagged: score >= flagged_from, flags: flags.collect() }
    }
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Strictness {
    /// Flags what is beyond doubt.
    Low,
    /// Flags what most people would mind.
    #[default]
    Medium,
    /// Flags whatever someone may mind.
    High,
}

impl Strictness {
    fn flagged_from(self) -> f64 {
        match self {
            Strictness::Low => 0.8,
            Strictness::Medium => 0.5,
            Strictness::High => 0.25,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnalyzeText {
    /// From which score on a text is flagged: 0.8, 0.5 or 0.25.
    #[serde(default)]
    strictness: Strictness,
    /// The text; by default that of `input`.
    text: Option<String>,
    /// A text, or an object with texts: title, text, content, message, body, caption.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct AnalyzedText {
    #[serde(flatten)]
    finding: Finding,
    /// As it was asked for.
    strictness: Strictness,
    /// How long the text is.
    characters: usize,
    /// How many words it has.
    words: usize,
    /// Words of insult among them.
    insults: usize,
    /// Links in it.
    links: usize,
    /// The share of capitals among the letters.
    capitals: f64,
    /// The share of words that came before.
    repeated_words: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnalyzeImage {
    /// What it is said to be: a MIME type such as `image/png`, or its first half.
    #[schemars(length(min = 1, max = CONTENT_TYPE_CHARS_MAX))]
    content_type: String,
    /// The image in base64, or as a data URL; by default that of `input`.
    data: Option<String>,
    /// An object with the image in `data` or `image`.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct AnalyzedImage {
    #[serde(flatten)]
    finding: Finding,
    /// The first half of what it is said to be.
    kind: String,
    /// The format that its bytes have.
    format: Option<ImageFormat>,
    /// In pixels.
    width: Option<u32>,
    /// In pixels.
    height: Option<u32>,
    /// Its length.
    bytes: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DetectSpam {
    /// From which score on a text is spam.
    #[serde(default = "spam_threshold")]
    threshold: Fraction,
    /// The text; by default that of `input`.
    text: Option<String>,
    /// A text, or an object with texts: title, text, content, message, body, caption.
    input: Option<Value>,
}

fn spam_threshold() -> Fraction {
    Fraction(0.8)
}

#[derive(Serialize, JsonSchema)]
struct DetectedSpam {
    #[serde(flatten)]
    finding: Finding,
    /// The same as `flagged`.
    is_spam: bool,
    /// As it was asked for.
    threshold: f64,
    /// Phrases of advertising in it.
    phrases: usize,
    /// Links in it.
    links: usize,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Strategy {
    /// Rejects what all flag; what only some flag is for review.
    #[default]
    Consensus,
    /// Rejects what one flags.
    Any,
    /// Rejects what more than half flag; what fewer flag is for review.
    Majority,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Aggregate {
    /// How many have to flag it.
    #[serde(default)]
    strategy: Strategy,
    /// The findings, by the step that made them: objects with `flagged` or `score`.
    input: Option<Value>,
}

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Decision {
    Approve,
    /// A person has to decide.
    Review,
    Reject,
}

#[derive(Serialize, JsonSchema)]
struct Aggregated {
    /// What to do with it.
    decision: Decision,
    /// As it was asked for.
    strategy: Strategy,
    /// The highest score.
    score: f64,
    /// How many findings there are of something that was looked at.
    examined: usize,
    /// How many of these are flagged.
    flagged: usize,
    /// Why it was not approved; a line for each step that has to do with it.
    reasons: Vec<String>,
}

pub(super) fn tools() -> [Tool; 4] {
    let text = Tool::structured("text_analyzer", |wanted: AnalyzeText, _| async move { analyze_text(wanted) });
    let image = Tool::structured("image_analyzer", |wanted: AnalyzeImage, _| async move { Ok(analyze_image(wanted)) });
    let spam = Tool::structured("spam_detector", |wanted: DetectSpam, _| async move { detect_spam(wanted) });
    let aggregator = Tool::structured("moderation_aggregator", |wanted: Aggregate, _| async move { aggregate(wanted) });
    [
        described(
            text,
            About {
                description: "Looks for shouting, insults, links and repetition in a text.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"strictness": "high", "text": "WHY DOES NOBODY ANSWER ME"}]),
            },
        ),
        described(
            image,
            About {
                description: "Says which format and size an image has, and whether it is what it is said to be.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"content_type": "image/gif", "data": "R0lGODlhAQABAIAAAAAAAP///w=="}]),
            },
        ),
        described(
            spam,
            About {
                description: "Looks for advertising in a text.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"threshold": "0.8", "text": "FREE MONEY!!! Click here: http://a.example"}]),
            },
        ),
        described(
            aggregator,
            About {
                description: "Decides by findings: approve, review or reject. What nobody looked at is for review.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"strategy": "consensus", "input": {"text_analyzer": {"score": 0.9}}}]),
            },
        ),
    ]
}

fn analyze_text(wanted: AnalyzeText) -> Result<AnalyzedText, CallError> {
    let text = text_of(wanted.text, wanted.input.as_ref())?;
    let signals = Signals::of(&text);
    let weighed = [
        ("shouting", signals.shouting(), 0.6),
        ("insults", strength(signals.insults, 2), 0.95),
        ("links", strength(signals.links, 4), 0.5),
        ("repetition", signals.repetition(), 0.5),
    ];
    Ok(AnalyzedText {
        finding: finding_of(&text, &weighed, wanted.strictness.flagged_from()),
        strictness: wanted.strictness,
        characters: signals.characters,
        words: signals.words,
        insults: signals.insults,
        links: signals.links,
        capitals: signals.capitals,
        repeated_words: signals.repeated_words,
    })
}

fn detect_spam(wanted: DetectSpam) -> Result<DetectedSpam, CallError> {
    let text = text_of(wanted.text, wanted.input.as_ref())?;
    let signals = Signals::of(&text);
    let weighed = [
        ("phrases", strength(signals.phrases, 2), 0.85),
        ("links", strength(signals.links, 3), 0.6),
        ("exclamations", ramp(signals.exclamations as f64, 2.0, 6.0), 0.4),
        ("amounts", strength(signals.amounts, 3), 0.4),
        ("shouting", signals.shouting(), 0.4),
        ("repetition", signals.repetition(), 0.4),
    ];
    let Fraction(threshold) = wanted.threshold;
    let finding = finding_of(&text, &weighed, threshold);
    let is_spam = finding.flagged;
    Ok(DetectedSpam { finding, is_spam, threshold, phrases: signals.phrases, links: signals.links })
}

fn finding_of(text: &str, signals: &[(&'static str, f64, f64)], flagged_from: f64) -> Finding {
    if text.trim().is_empty() { Finding::default() } else { Finding::of(signals, flagged_from) }
}

/// The text that is meant; empty where there is none.
fn text_of(text: Option<String>, input: Option<&Value>) -> Result<String, CallError> {
    let of_fields =
        |fields: &Value| TEXT_FIELDS.iter().filter_map(|field| fields[*field].as_str()).collect::<Vec<_>>().join("\n");
    let text = text.unwrap_or_else(|| match input {
        Some(Value::String(text)) => text.clone(),
        Some(fields @ Value::Object(_)) => of_fields(fields),
        _ => String::new(),
    });
    if text.len() > TEXT_BYTES_MAX {
        return Err(CallError::failed(format!("the text is {} bytes, the limit is {TEXT_BYTES_MAX}", text.len())));
    }
    Ok(text)
}

fn analyze_image(wanted: AnalyzeImage) -> AnalyzedImage {
    let content_type = wanted.content_type.trim().to_ascii_lowercase();
    let (kind, subtype) = content_type.split_once('/').unwrap_or((&content_type, ""));
    let of_input = || ["data", "image"].into_iter().find_map(|field| wanted.input.as_ref()?[field].as_str());
    let nothing = AnalyzedImage {
        finding: Finding::default(),
        kind: kind.to_owned(),
        format: None,
        width: None,
        height: None,
        bytes: 0,
    };
    let Some(encoded) = wanted.data.as_deref().or_else(of_input) else { return nothing };
    let encoded = encoded.strip_prefix("data:").and_then(|url| url.split_once(',')).map_or(encoded, |(_, data)| data);
    let Ok(bytes) = STANDARD.decode(encoded.trim()) else {
        return AnalyzedImage { finding: Finding::of(&[("no_base64", 1.0, 0.6)], FLAGGED_FROM), ..nothing };
    };
    let format = ImageFormat::of(&bytes);
    let size = format.and_then(|format| format.dimensions(&bytes));
    let pixels = size.map(|(width, height)| u64::from(width) * u64::from(height));
    // `image/jpg` is a common misspelling.
    let is_other = |format: ImageFormat| {
        kind != "image"
            || !matches!(subtype, "" | "*")
                && subtype != format.subtype()
                && (subtype, format.subtype()) != ("jpg", "jpeg")
    };
    let holds = |is_so: bool| if is_so { 1.0 } else { 0.0 };
    let weighed = [
        ("unknown_format", holds(format.is_none() && kind == "image"), 0.6),
        ("other_type", holds(format.is_some_and(is_other)), 0.7),
        ("truncated", holds(format.is_some() && size.is_none()), 0.5),
        ("too_many_pixels", holds(pixels.is_some_and(|pixels| pixels > PIXELS_MAX)), 0.8),
        ("no_pixels", holds(pixels == Some(0)), 0.6),
        ("tracking_pixel", holds(pixels == Some(1)), 0.3),
    ];
    AnalyzedImage {
        finding: Finding::of(&weighed, FLAGGED_FROM),
        format,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        bytes: bytes.len(),
        ..nothing
    }
}

fn aggregate(wanted: Aggregate) -> Result<Aggregated, CallError> {
    let findings = match wanted.input.unwrap_or_default() {
        Value::Object(findings) => findings,
        other => {
            return Err(CallError::failed(format!(
                "input: expected an object of findings by step, came {}",
                kind(&other)
            )));
        }
    };
    if findings.len() > FINDINGS_MAX {
        return Err(CallError::failed(format!(
            "input: expected at most {FINDINGS_MAX} findings, came {}",
            findings.len()
        )));
    }
    let (mut examined, mut flagged, mut missing, mut score, mut reasons) = (0, 0, 0, 0.0_f64, Vec::new());
    for (step, finding) in &findings {
        let of_step = finding["score"].as_f64().map(|score| score.clamp(0.0, 1.0));
        let is_flagged = finding["flagged"].as_bool().or(of_step.map(|score| score >= FLAGGED_FROM));
        let Some(is_flagged) = is_flagged else {
            missing += 1;
            reasons.push(format!("{step}: expected a finding, came {}", kind(finding)));
            continue;
        };
        if finding["examined"] == Value::Bool(false) {
            continue;
        }
        examined += 1;
        score = score.max(of_step.unwrap_or_default());
        if is_flagged {
            flagged += 1;
            reasons.push(reason(step, finding, of_step));
        }
    }
    let is_rejected = match wanted.strategy {
        Strategy::Consensus => flagged == examined && missing == 0,
        Strategy::Any => flagged > 0,
        Strategy::Majority => flagged * 2 > examined + missing,
    };
    let decision = match (examined, flagged, missing) {
        (0, ..) => {
            reasons.push("nothing was there to look at".to_owned());
            Decision::Review
        }
        (_, 0, 0) => Decision::Approve,
        (_, 1.., _) if is_rejected => Decision::Reject,
        _ => Decision::Review,
    };
    Ok(Aggregated { decision, strategy: wanted.strategy, score, examined, flagged, reasons })
}

/// What a step found: its flags and its score.
fn reason(step: &str, finding: &Value, score: Option<f64>) -> String {
    let flags: Vec<_> = finding["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let flags = if flags.is_empty() { "flagged".to_owned() } else { flags.join(", ") };
    let score = score.map(|score| format!(" ({score})")).unwrap_or_default();
    format!("{step}: {flags}{score}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tools, refused};
    use super::*;

    /// A 1×1 GIF.
    const PIXEL: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    /// The beginning of a PNG of 258×772 pixels.
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAQIAAAMECAYAAAA=";

    async fn flags(tool: &str, arguments: Value) -> (bool, Value) {
        let finding = Tools::new().call(tool, arguments).await;
        (finding["flagged"].as_bool().expect("a finding"), finding["flags"].clone())
    }

    #[tokio::test]
    async fn strictness_says_from_when_on_a_text_is_flagged() {
        let text = "You are an idiot, and the build is broken again.";
        let flagged = async |strictness| flags("text_analyzer", json!({"strictness": strictness, "text": text})).await;

        assert_eq!(flagged("low").await, (false, json!(["insults"])));
        assert_eq!(flagged("medium").await, (false, json!(["insults"])));
        assert_eq!(flagged("high").await, (true, json!(["insults"])));
        let worse = json!({"strictness": "low", "text": "IDIOT! MORON! YOU ARE ALL LOSERS"});
        assert_eq!(flags("text_analyzer", worse).await, (true, json!(["shouting", "insults"])));
    }

    #[tokio::test]
    async fn a_text_comes_by_itself_or_in_what_a_step_gives() {
        let tools = Tools::new();
        let characters = async |arguments| tools.call("text_analyzer", arguments).await["characters"].clone();

        assert_eq!(characters(json!({"text": "abc", "input": "else"})).await, 3);
        assert_eq!(characters(json!({"input": "abcd"})).await, 4);
        assert_eq!(characters(json!({"input": {"body": "ef", "title": "ab", "id": "ghi"}})).await, 5);
        for nothing in [json!({}), json!({"input": null}), json!({"input": [1]}), json!({"text": " "})] {
            let finding = tools.call("text_analyzer", nothing).await;
            assert_eq!((&finding["examined"], &finding["score"]), (&json!(false), &json!(0.0)));
        }
        let long = tools.try_call("spam_detector", json!({"text": "x".repeat(65_537)})).await;
        assert_eq!(long, refused("the text is 65537 bytes, the limit is 65536"));
    }

    #[tokio::test]
    async fn spam_is_what_reaches_the_threshold() {
        let spam = "FREE MONEY!!!! Click here, act now: http://a.example http://b.example $1000";
        let is_spam = async |threshold: Value| {
            Tools::new().call("spam_detector", json!({"threshold": threshold, "text": spam})).await["is_spam"].clone()
        };

        assert_eq!(is_spam(json!("0.8")).await, true);
        assert_eq!(is_spam(json!(0.8)).await, true);
        assert_eq!(is_spam(json!(1)).await, false);
        let ordinary = json!({"threshold": "0.8", "text": "See https://example.com, it costs $5. Thank you!"});
        assert_eq!(flags("spam_detector", ordinary).await, (false, json!(["links"])));
        let unfit = Tools::new().try_call("spam_detector", json!({"threshold": "high", "text": ""})).await;
        assert!(unfit.expect_err("unfit").starts_with("invalid arguments: threshold: "));
    }

    #[tokio::test]
    async fn an_image_is_compared_with_what_it_is_said_to_be() {
        let image = async |content_type, data| {
            flags("image_analyzer", json!({"content_type": content_type, "data": data})).await
        };

        assert_eq!(image("image/png", PNG).await, (false, json!([])));
        assert_eq!(image("image", PNG).await, (false, json!([])));
        assert_eq!(image("image/jpeg", PNG).await, (true, json!(["other_type"])));
        assert_eq!(image("text/html", PNG).await, (true, json!(["other_type"])));
        assert_eq!(image("image/gif", PIXEL).await, (false, json!(["tracking_pixel"])));
        assert_eq!(image("image/png", &PNG[..24]).await, (true, json!(["truncated"])));
        assert_eq!(image("image/png", "JVBERi0xLjc=").await, (true, json!(["unknown_format"])));
        assert_eq!(image("image/png", "no base64").await, (true, json!(["no_base64"])));
        assert_eq!(image("image/gif", "R0lGODlh//////8A").await, (true, json!(["too_many_pixels"])));
    }

    #[tokio::test]
    async fn an_image_comes_as_a_data_url_or_in_what_a_step_gives_too() {
        let tools = Tools::new();
        let size = async |arguments| {
            let said = tools.call("image_analyzer", arguments).await;
            [&said["format"], &said["width"], &said["height"], &said["examined"]].map(Clone::clone)
        };

        let png = [json!("png"), json!(258), json!(772), json!(true)];
        let url = format!("data:image/png;base64,{PNG}");
        assert_eq!(size(json!({"content_type": "image", "data": url})).await, png);
        let block = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
        assert_eq!(size(json!({"content_type": "image", "input": block})).await, png);
        let nothing = [Value::Null, Value::Null, Value::Null, json!(false)];
        assert_eq!(size(json!({"content_type": "image", "input": {"text": "a"}})).await, nothing);
    }

    #[tokio::test]
    async fn findings_are_put_together_by_a_strategy() {
        let tools = Tools::new();
        let decided = async |strategy: &str, flagged: &[bool]| {
            let step =
                |(index, flagged): (usize, &bool)| (format!("s{index}"), json!({"flagged": flagged, "score": 0.5}));
            let findings: Value = flagged.iter().enumerate().map(step).collect::<serde_json::Map<_, _>>().into();
            tools.call("moderation_aggregator", json!({"strategy": strategy, "input": findings})).await["decision"]
                .clone()
        };

        let cases = [
            (&[false, false, false], ["approve", "approve", "approve"]),
            (&[true, false, false], ["review", "reject", "review"]),
            (&[true, true, false], ["review", "reject", "reject"]),
            (&[true, true, true], ["reject", "reject", "reject"]),
        ];
        for (flagged, expected) in cases {
            for (strategy, expected) in ["consensus", "any", "majority"].into_iter().zip(expected) {
                assert_eq!(decided(strategy, flagged).await, expected, "{strategy} {flagged:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_looked_at_is_not_approved() {
        let tools = Tools::new();
        let aggregate = async |input| tools.call("moderation_aggregator", json!({"input": input})).await;

        let unseen = json!({"flagged": false, "score": 0.0, "examined": false, "flags": []});
        let nothing = aggregate(json!({"text": unseen, "image": unseen})).await;
        assert_eq!(
            (&nothing["decision"], &nothing["reasons"]),
            (&json!("review"), &json!(["nothing was there to look at"]))
        );
        let fine = json!({"flagged": false, "score": 0.1, "examined": true, "flags": []});
        assert_eq!(aggregate(json!({"text": fine, "image": unseen})).await["decision"], "approve");
        let broken = aggregate(json!({"text": fine, "image": null})).await;
        assert_eq!(
            (&broken["decision"], &broken["reasons"]),
            (&json!("review"), &json!(["image: expected a finding, came null"]))
        );
        let bad = json!({"flagged": true, "score": 0.9, "flags": ["insults", "shouting"]});
        let rejected = aggregate(json!({"text": bad, "image": unseen, "other": {"score": 0.6}})).await;
        assert_eq!(
            (&rejected["decision"], &rejected["score"], &rejected["examined"]),
            (&json!("reject"), &json!(0.9), &json!(2))
        );
        assert_eq!(rejected["reasons"], json!(["other: flagged (0.6)", "text: insults, shouting (0.9)"]));
        let unfit = tools.try_call("moderation_aggregator", json!({"input": [1]})).await;
        assert_eq!(unfit, refused("input: expected an object of findings by step, came a list"));
    }
}
