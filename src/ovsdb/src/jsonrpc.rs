//! JSON-RPC 1.0 over a byte stream: cuts the stream into JSON objects, turns objects into messages.
//!
//! Neighbours: [`crate::session`] speaks it to the database server; the daemon's control socket speaks
//! the server's side of it with [`Framer`] and [`Message`] alone.
//! Threads: a framer belongs to the one thread that reads the stream.

use serde_json::{json, Map, Value};

/// Bounds on what a peer may make us keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes.
    pub max_message: usize,
    /// Deepest nesting of objects and arrays. Must stay below 128, the parser's own bound.
    pub max_depth: u32,
}

impl Limits {
    /// For a database server, whose first update holds all rows.
    pub const DATABASE: Limits = Limits { max_message: 256 << 20, max_depth: 100 };
    /// For a control socket, whose requests are command lines.
    pub const CONTROL: Limits = Limits { max_message: 1 << 20, max_depth: 20 };
}

/// What is wrong with the byte stream or with a message. The stream cannot be trusted any more: close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// A message must be an object.
    #[error("syntax error: message starts with byte 0x{0:02x} instead of \"{{\"")]
    Start(u8),
    /// More than the limit without an end.
    #[error("message exceeds maximum size of {0} bytes")]
    TooLong(usize),
    /// Nesting beyond the limit.
    #[error("input exceeds maximum nesting depth {0}")]
    TooDeep(u32),
    /// Not JSON.
    #[error("error parsing stream: {0}")]
    Json(String),
    /// JSON, but no JSON-RPC message.
    #[error("received bad JSON-RPC message: {0}")]
    Message(String),
}

/// The start of a JSON text, short enough for a log line.
pub(crate) fn excerpt(json: &Value) -> String {
    let text = json.to_string();
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Cuts a byte stream into JSON objects, whatever the sizes of the reads.
///
/// Each byte is looked at once by the framer, however often a message arrives in parts.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Start of the message that is being read.
    start: usize,
    /// Next byte to look at.
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
    broken: Option<RpcError>,
}

impl Framer {
    /// An empty framer.
    pub fn new(limits: Limits) -> Framer {
        Framer {
            limits,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            broken: None,
        }
    }

    /// Takes bytes off the stream. Follow with [`Framer::next_value`] or [`Framer::next_message`] until they
    /// return none, so that no more than one message stays buffered.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole object, if there is one. An error stays: the stream is out of step for good.
    pub fn next_value(&mut self) -> Result<Option<Value>, RpcError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let result = self.scan().and_then(|end| match end {
            None => Ok(None),
            Some(end) => {
                let value = serde_json::from_slice(&self.buffer[self.start..end]);
                self.start = end;
                self.trim();
                value.map(Some).map_err(|error| RpcError::Json(error.to_string()))
            }
        });
        if let Err(error) = &result {
            self.broken = Some(error.clone());
            self.buffer = Vec::new();
        }
        result
    }

    /// The next whole message, if there is one.
    pub fn next_message(&mut self) -> Result<Option<Message>, RpcError> {
        let Some(value) = self.next_value()? else {
            return Ok(None);
        };
        match Message::from_value(value) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                self.broken = Some(error.clone());
                self.buffer = Vec::new();
                Err(error)
            }
        }
    }

    /// Gives the memory of a long message back once it is consumed.
    fn trim(&mut self) {
        if self.start == self.buffer.len() {
            self.start = 0;
            self.scanned = 0;
            self.buffer.clear();
            self.buffer.shrink_to(64 << 10);
        }
    }

    /// Scans up to the end of the current message; returns the offset behind it.
    fn scan(&mut self) -> Result<Option<usize>, RpcError> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            if self.depth == 0 {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.start = self.scanned + 1,
                    b'{' => self.depth = 1,
                    other => return Err(RpcError::Start(other)),
                }
            } else if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
                if self.depth > self.limits.max_depth {
                    return Err(RpcError::TooDeep(self.limits.max_depth));
                }
            }
            self.scanned += 1;
            if self.scanned - self.start > self.limits.max_message {
                return Err(RpcError::TooLong(self.limits.max_message));
            }
            if self.depth == 0 && self.start < self.scanned {
                return Ok(Some(self.scanned));
            }
        }
        self.trim();
        Ok(None)
    }
}

/// A JSON-RPC message of either direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Wants a reply with the same id.
    Request {
        /// What to do.
        method: String,
        /// With what.
        params: Vec<Value>,
        /// Never null.
        id: Value,
    },
    /// Wants no reply.
    Notify {
        /// What happened.
        method: String,
        /// To what.
        params: Vec<Value>,
    },
    /// A request succeeded.
    Reply {
        /// What came of it.
        result: Value,
        /// The request's id.
        id: Value,
    },
    /// A request failed.
    Error {
        /// Why; a string or an object.
        error: Value,
        /// The request's id.
        id: Value,
    },
}

impl Message {
    /// A request.
    pub fn request(method: &str, params: Vec<Value>, id: impl Into<Value>) -> Message {
        Message::Request { method: method.into(), params, id: id.into() }
    }

    /// Classifies a JSON object.
    pub fn from_value(value: Value) -> Result<Message, RpcError> {
        let Value::Object(mut object) = value else {
            return Err(RpcError::Message(format!("not an object: {}", excerpt(&value))));
        };
        let bad = |what: &str, value: &Value| RpcError::Message(format!("{what}: {}", excerpt(value)));
        let method = object.remove("method").filter(|value| !value.is_null());
        let id = object.remove("id").unwrap_or(Value::Null);
        let message = if let Some(method) = method {
            let Value::String(method) = method else {
                return Err(bad("\"method\" is not a string", &method));
            };
            let params = match object.remove("params") {
                Some(Value::Array(params)) => params,
                other => {
                    return Err(bad(
                        "request needs \"params\" that is an array",
                        &other.unwrap_or(Value::Null),
                    ))
                }
            };
            for name in ["result", "error"] {
                if let Some(other) = object.remove(name).filter(|value| !value.is_null()) {
                    return Err(bad("request has a result or an error", &other));
                }
            }
            match id {
                Value::Null => Message::Notify { method, params },
                id => Message::Request { method, params, id },
            }
        } else {
            Message::reply_from(&mut object, id)?
        };
        match object.keys().next() {
            Some(name) => Err(RpcError::Message(format!("unexpected member {name:?}"))),
            None => Ok(message),
        }
    }

    fn reply_from(object: &mut Map<String, Value>, id: Value) -> Result<Message, RpcError> {
        if let Some(params) = object.remove("params").filter(|params| !params.is_null()) {
            return Err(RpcError::Message(format!("\"params\" without \"method\": {}", excerpt(&params))));
        }
        let (result, error) = (object.remove("result"), object.remove("error"));
        if id.is_null() && error.as_ref().is_none_or(Value::is_null) {
            return Err(RpcError::Message("reply needs an \"id\"".into()));
        }
        match (result, error) {
            (Some(result), None | Some(Value::Null)) => Ok(Message::Reply { result, id }),
            (None | Some(Value::Null), Some(error)) if !error.is_null() => Ok(Message::Error { error, id }),
            (Some(_), Some(error)) => {
                Err(RpcError::Message(format!("both \"result\" and \"error\": {}", excerpt(&error))))
            }
            _ => Err(RpcError::Message("neither \"method\" nor \"result\" nor \"error\"".into())),
        }
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_value().to_string().into_bytes()
    }

    /// The message as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Message::Request { method, params, id } => json!({"method": method, "params": params, "id": id}),
            Message::Notify { method, params } => json!({"method": method, "params": params, "id": null}),
            Message::Reply { result, id } => json!({"result": result, "error": null, "id": id}),
            Message::Error { error, id } => json!({"result": null, "error": error, "id": id}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame_all(framer: &mut Framer, bytes: &[u8]) -> Result<Vec<Value>, RpcError> {
        framer.push(bytes);
        let mut values = Vec::new();
        while let Some(value) = framer.next_value()? {
            values.push(value);
        }
        Ok(values)
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { max_message: 32, max_depth: 3 };
        let one = |text: &str| frame_all(&mut Framer::new(limits), text.as_bytes());
        assert_eq!(one("{\"a\":[[1]]}").unwrap().len(), 1);
        assert_eq!(one("{\"a\":[[[1]]]}"), Err(RpcError::TooDeep(3)));
        assert_eq!(one(&format!("{{\"a\":\"{}\"}}", "x".repeat(24))).unwrap().len(), 1);
        assert_eq!(one(&format!("{{\"a\":\"{}\"}}", "x".repeat(25))), Err(RpcError::TooLong(32)));
        assert_eq!(one("  [1]"), Err(RpcError::Start(b'[')));
        assert!(matches!(one("{]"), Err(RpcError::Json(_))));
        assert!(matches!(one("{\"a\" 1}"), Err(RpcError::Json(_))));
        assert!(matches!(frame_all(&mut Framer::new(limits), b"{\"a\":\"\xff\"}"), Err(RpcError::Json(_))));
        // The parser's own depth bound is an error as well, not a crash.
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(300), "]".repeat(300));
        let loose = Limits { max_message: 1000, max_depth: 1000 };
        assert!(matches!(frame_all(&mut Framer::new(loose), deep.as_bytes()), Err(RpcError::Json(_))));
    }

    #[test]
    fn an_error_stays() {
        let mut framer = Framer::new(Limits::CONTROL);
        assert!(frame_all(&mut framer, b"x").is_err());
        assert_eq!(frame_all(&mut framer, b"{}"), Err(RpcError::Start(b'x')));
    }

    #[test]
    fn classifies_messages() {
        let parse = |text: &str| Message::from_value(serde_json::from_str(text).unwrap());
        assert_eq!(
            parse(r#"{"method":"echo","params":[],"id":"x"}"#),
            Ok(Message::request("echo", vec![], "x"))
        );
        assert_eq!(
            parse(r#"{"method":"update","params":[1],"id":null}"#),
            Ok(Message::Notify { method: "update".into(), params: vec![json!(1)] })
        );
        assert_eq!(
            parse(r#"{"result":{},"error":null,"id":1}"#),
            Ok(Message::Reply { result: json!({}), id: json!(1) })
        );
        assert_eq!(
            parse(r#"{"result":null,"error":"no","id":1}"#),
            Ok(Message::Error { error: json!("no"), id: json!(1) })
        );
        for bad in [
            r#"[]"#,
            r#"{}"#,
            r#"{"method":1,"params":[],"id":1}"#,
            r#"{"method":"m","params":{},"id":1}"#,
            r#"{"method":"m","id":1}"#,
            r#"{"method":"m","params":[],"id":1,"result":2}"#,
            r#"{"method":"m","params":[],"id":1,"more":2}"#,
            r#"{"result":1,"error":2,"id":1}"#,
            r#"{"result":1,"error":null,"id":null}"#,
            r#"{"result":1,"params":[],"id":3}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            "[\\\\\"{}\\[\\] ]*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"{\\\\]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn framing_does_not_depend_on_the_cuts(
            values in proptest::collection::vec(any_json(), 1..5),
            pretty: bool,
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let values: Vec<Value> = values.into_iter().map(|v| json!({"v": v})).collect();
            let text: String = values
                .iter()
                .map(|v| if pretty { format!("{v:#}\n") } else { v.to_string() })
                .collect();
            let mut rest = text.as_bytes();
            let mut framer = Framer::new(Limits::CONTROL);
            let mut got = Vec::new();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                got.extend(frame_all(&mut framer, now).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, values);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[{}\\[\\]\",:a0\\\\ ]{0,60}") {
            let limits = Limits { max_message: 40, max_depth: 4 };
            let _ = frame_all(&mut Framer::new(limits), &bytes);
            let mut framer = Framer::new(limits);
            framer.push(text.as_bytes());
            while let Ok(Some(_)) = framer.next_message() {}
        }

        #[test]
        fn messages_round_trip(method in "[a-z]{1,8}", v in any_json(), id in 0u64..9) {
            for message in [
                Message::request(&method, vec![v.clone()], id),
                Message::Notify { method: method.clone(), params: vec![v.clone()] },
                Message::Reply { result: v.clone(), id: json!(id) },
                Message::Error { error: json!([v]), id: json!(id) },
            ] {
                prop_assert_eq!(Message::from_value(message.to_value()).unwrap(), message);
            }
        }
    }
}
