//! A message a line on stdin and stdout.

use std::io::{self, BufRead as _};
use std::sync::Arc;
use std::thread;

use serde_json::value::RawValue;

use crate::call::Call;
use crate::message::Message;
use crate::output::{self, Output};
use crate::server::{Server, Work};
use crate::{odd, tools};

/// Serves until stdin ends.
pub fn serve(server: &Arc<Server>) -> io::Result<()> {
    let stdout = Arc::new(Output::stdout());
    let session = server.open("stdio".to_owned(), Some(stdout.clone()));
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if stdin.read_until(b'\n', &mut line)? == 0 {
            server.log(r#""event":"eof""#);
            return Ok(());
        }
        output::unless_hung();
        server.log_received(r#""via":"stdio""#, &line);
        let Ok(message) = serde_json::from_slice::<Message>(&line) else {
            if !line.trim_ascii().is_empty() {
                stdout.send(&refusal(&line));
            }
            continue;
        };
        match session.receive(message) {
            Work::Nothing => {}
            Work::Answer(answer) => stdout.send(&answer.text),
            Work::Listen(request) => server.listen(&session, request, stdout.clone()),
            // Stdin is to be read no further.
            Work::Call(request) if request.params.name == "hang" => output::hang(),
            Work::Call(request) => {
                let call = Call::begin(&session, request, stdout.clone());
                thread::spawn(move || {
                    tools::run(&call);
                    call.end();
                    call.server().call_ended();
                });
            }
        }
    }
}

/// What is said of what is no JSON-RPC message.
pub fn refusal(received: &[u8]) -> String {
    match serde_json::from_slice::<&RawValue>(received) {
        Ok(_) => odd::error("null", "-32600", "it is no message", odd::VALUE),
        Err(fault) => odd::error("null", "-32700", &fault.to_string(), odd::VALUE),
    }
}
