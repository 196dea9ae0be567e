//! What the server lists, reads, completes and repeats: everything but tools that are called.

use crate::odd;
use crate::server::{Era, INVALID_PARAMS, METHOD_NOT_FOUND, Request, STATELESS_VERSION, Server, Work};

/// The cursor of the second page of tools: as it is written, and what it means.
const SECOND_PAGE: (&str, &str) = (r#""page \"2\" \u00e9\/""#, "page \"2\" é/");
/// Tools on the first page.
const PAGE_TOOLS: usize = 13;

/// Names, descriptions, and properties of the arguments.
const TOOLS: [(&str, &str, &str); 26] = [
    ("echo_raw", "Answers with the text of its params", r#""region":{"type":"string","x-mcp-header":"Region"}"#),
    ("progress", "Reports progress, then answers", COUNT),
    ("sample", "Asks the client's model", ANYWAY),
    ("elicit", "Asks the person at the client", ANYWAY),
    ("roots", "Asks for the client's roots", ANYWAY),
    ("big_id", "Asks with an odd id", r#""kind":{"enum":["string" , "number"]}, "anyway":{"type":"boolean"}"#),
    ("fail_rpc", "Fails with a JSON-RPC error", r#""code":{"type":"integer","default":-31001}"#),
    ("fail_tool", "Fails with isError", ""),
    ("log", "Sends log messages", r#""level":{"type":"string"},"count":{"type":"integer" , "minimum":0e0}"#),
    ("slow", "Answers after a while", MS),
    ("wait", "Never answers", r#""answer_anyway":{"type":"boolean"}"#),
    ("notify_changed", "Toggles the tool extra", r#""what":{"enum":["tools","prompts","resources"]}"#),
    ("touch", "Tells of an updated resource", r#""uri":{"type":"string","format":"uri"}"#),
    ("sleep_child", "Starts a process that stays", r#""inherit":{"type":"boolean"}"#),
    ("garbage", "Sends what is no message, then answers", ""),
    ("oversize", "Answers with so many bytes", r#""bytes":{"maximum":12345678901234567890123,"type":"integer"}"#),
    ("duplicate", "Answers twice", ""),
    ("late", "Goes on after its answer", MS),
    ("flood", "Sends notifications as fast as it can", COUNT),
    ("interleave", "Writes its answer in pieces", ""),
    ("half_line_exit", "Exits within its answer", ""),
    ("crash", "Exits instead of answering", ""),
    ("hang", "Has the process stand still", ""),
    ("odd name/\u{e9}", "Is not there, whatever the list says", ""),
    ("no_description", "", ""),
    ("extra", "Comes and goes", ""),
];

const COUNT: &str = r#""count":{"multipleOf":1.0,"maximum":1e9 , "type":"integer"}"#;
const ANYWAY: &str = r#""anyway":{"type":"boolean","description":"even if you can't"}"#;
const MS: &str = r#""ms":{"minimum":0.0 ,"type":"number"}"#;

const RESOURCES: &str = concat!(
    r#""resources":[ {"x-odd-resource":{ "zeta":1e2,"alpha":12345678901234567890123},"size":1e1,"name":"one","uri":"odd:\/\/one","mimeType":"text\/plain" },"#,
    r#"{"uri":"odd://caf%C3%A9","name":"caf\u00e9","annotations":{"x-odd-hint":1.0,"priority":1.0},"title":"Two"} , "#,
    r#"{"name":"blob","uri":"odd://blob","mimeType":"application/octet-stream","x-odd":null} ]"#
);
const TEMPLATES: &str = r#""resourceTemplates":[ {"x-odd-template":1e2,"name":"item","uriTemplate":"odd:\/\/item\/{id}","title":"Item \u00e9"} ]"#;
const PROMPTS: &str = concat!(
    r#""prompts":[ {"x-odd-prompt":{"zeta":1e2,"alpha":1.0},"arguments":[ {"x-odd-argument":12345678901234567890123,"required":false,"name":"text"} ],"#,
    r#""description":"An odd \u00e9 prompt","name":"odd_prompt"} ]"#
);

pub fn capabilities(era: Era) -> String {
    let of_era = match era {
        Era::Legacy => r#""logging":{ },"experimental":{"vendor.example\/odd":{"one":1.0}}"#,
        Era::Stateless => r#""logging":{ "x-odd":1e2},"extensions":{"vendor.example\/odd":{"one":1.0}}"#,
    };
    format!(
        concat!(
            r#"{{ "x-odd-capability":{{"zeta":1e2, "alpha":12345678901234567890123}},"tools":{{"x-odd":1.0,"listChanged":true}} ,"#,
            r#""resources":{{"subscribe":true , "listChanged":true,"x-odd":[ ]}},"prompts":{{"listChanged":true}},"completions":{{ }},{}}}"#
        ),
        of_era
    )
}

/// Answers what needs no conversation.
pub fn answer(server: &Server, method: &str, request: &Request) -> Work {
    match method {
        "server/discover" if request.era == Era::Stateless => request.answer_cacheable(&format!(
            r#""instructions":"Be odd \u00e9\/.","capabilities":{},"supportedVersions":["{STATELESS_VERSION}"]"#,
            capabilities(Era::Stateless)
        )),
        "tools/list" => tools(server, request),
        "resources/list" => request.answer_cacheable(RESOURCES),
        "resources/templates/list" => request.answer_cacheable(TEMPLATES),
        "resources/read" => resource(request),
        "prompts/list" => request.answer_cacheable(PROMPTS),
        "prompts/get" => prompt(request),
        "completion/complete" => request.answer(
            r#""completion":{"x-odd":12345678901234567890123,"values":[ "alpha","b\u00e9ta\/"],"hasMore":false,"total":2}"#,
        ),
        vendor if vendor.starts_with("vendor/") => {
            let params = odd::or_null(request.text.as_deref());
            request.answer(&format!(r#""params":{params},"method":{}"#, odd::string(vendor)))
        }
        other => request.refuse(METHOD_NOT_FOUND, &format!("no method is called {other}"), odd::VALUE),
    }
}

fn tools(server: &Server, request: &Request) -> Work {
    let all = if server.has_extra() { &TOOLS[..] } else { &TOOLS[..TOOLS.len() - 1] };
    let (page, next) = match request.params.cursor.as_deref() {
        None => (&all[..PAGE_TOOLS], format!(r#""nextCursor":{} ,"#, SECOND_PAGE.0)),
        Some(cursor) if cursor == SECOND_PAGE.1 => (&all[PAGE_TOOLS..], String::new()),
        Some(_) => return request.refuse(INVALID_PARAMS, "no such page", odd::VALUE),
    };
    let page: Vec<_> = page.iter().map(|(name, description, properties)| tool(name, description, properties)).collect();
    request.answer_cacheable(&format!(r#"{next}"tools":[ {} ]"#, page.join(" , ")))
}

fn tool(name: &str, description: &str, properties: &str) -> String {
    let output = match name {
        "echo_raw" => {
            r#""outputSchema":{"x-odd":1e2,"required":["params"],"properties":{"params":{ }},"type":"object"},"#
        }
        _ => "",
    };
    let description = match description {
        "" => String::new(),
        text => format!(r#""description":{},"#, odd::string(text)),
    };
    format!(
        concat!(
            r#"{{"x-odd-tool":{{ "zeta":1e2,"alpha":12345678901234567890123}},{}"annotations":{{"x-odd-hint":1.0 ,"readOnlyHint":true,"title":"\u00e9\/"}},{}"#,
            r#""execution":{{"taskSupport":"forbidden","x-odd":1e2}},"inputSchema":{{"x-odd":{{"one":1.0}},"properties":{{ {}}},"type":"object"}},"#,
            r#""_meta":{{{}}},"name":{}}}"#
        ),
        output,
        description,
        properties,
        odd::META,
        odd::string(name)
    )
}

fn resource(request: &Request) -> Work {
    let uri = request.params.uri.as_str();
    let content = match uri {
        "odd://one" | "odd://caf%C3%A9" => r#""text":"odd \u00e9\/ text","mimeType":"text\/plain""#,
        "odd://blob" => r#""blob":"b2Rk","mimeType":"application\/octet-stream""#,
        _ if uri.starts_with("odd://item/") => r#""text":"an item","x-odd-item":1.0"#,
        _ => {
            let code = if request.era == Era::Legacy { "-32002" } else { INVALID_PARAMS };
            return request.refuse(code, "no such resource", &format!(r#"{{"x-odd":1e2,"uri":{}}}"#, odd::string(uri)));
        }
    };
    request.answer_cacheable(&format!(
        r#""contents":[ {{"x-odd-contents":12345678901234567890123,{content} ,"uri":{}}} ]"#,
        odd::string(uri)
    ))
}

fn prompt(request: &Request) -> Work {
    if request.params.name != "odd_prompt" {
        return request.refuse(INVALID_PARAMS, "no such prompt", odd::VALUE);
    }
    let text = odd::or_null(request.text.as_deref());
    request.answer(&format!(
        r#""messages":[ {{"x-odd-message":1e2,"content":{},"role":"user"}} ],"description":"odd \u00e9""#,
        odd::text_block(text)
    ))
}
