//! Tokens to a tree.

use super::scan::{Kind, Token, tokens};
use super::{MAX_DEPTH, MAX_LENGTH, Mistake};

/// A part of an expression.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    /// Byte of the text.
    pub(super) at: usize,
    /// Levels below, itself included.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Op {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(Box<str>),
    List(Vec<Node>),
    Payload,
    EventType,
    Channels,
    Tags,
    /// The element of the so-manieth loop around it, from outside.
    Element(usize),
    Field(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>, Box<str>),
    Size(Box<Node>),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Compare, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Affix(Affix, Box<Node>, Box<Node>),
    /// `exists` (true) and `all` (false).
    Each(bool, Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Differs,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affix {
    Starts,
    Ends,
    Contains,
}

impl Node {
    /// Whether `payload` stands anywhere in it.
    pub(super) fn asks_payload(&self) -> bool {
        match &self.op {
            Op::Payload => true,
            Op::Null
            | Op::Flag(_)
            | Op::Whole(_)
            | Op::Real(_)
            | Op::Text(_)
            | Op::EventType
            | Op::Channels
            | Op::Tags
            | Op::Element(_) => false,
            Op::List(parts) | Op::All(parts) | Op::Any(parts) => {
                parts.iter().any(Self::asks_payload)
            }
            Op::Field(one, _) | Op::Has(one, _) | Op::Size(one) | Op::Not(one) => {
                one.asks_payload()
            }
            Op::Index(a, b)
            | Op::Compare(_, a, b)
            | Op::In(a, b)
            | Op::Affix(_, a, b)
            | Op::Each(_, a, b) => a.asks_payload() || b.asks_payload(),
        }
    }
}

/// Reads a whole expression.
pub(super) fn program(source: &str) -> Result<Node, Mistake> {
    if source.len() > MAX_LENGTH {
        return Err(Mistake {
            at: MAX_LENGTH,
            what: "the expression is too long",
        });
    }
    let mut parser = Parser {
        tokens: tokens(source)?,
        next: 0,
        end: source.len(),
        nesting: 0,
        names: Vec::new(),
    };
    let node = parser.any()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(Mistake {
            at: token.at,
            what: "an operator or the end is wanted here",
        }),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    end: usize,
    nesting: usize,
    /// Names of elements, outer loops first.
    names: Vec<&'a str>,
}

type Read = Result<Node, Mistake>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.next)
    }

    fn at(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    fn wrong<T>(&self, what: &'static str) -> Result<T, Mistake> {
        let at = self.at();
        Err(Mistake { at, what })
    }

    fn take(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token { kind: Kind::Sign(s), .. }) if *s == sign);
        self.next += usize::from(is_it);
        is_it
    }

    fn want(&mut self, sign: &str, what: &'static str) -> Result<(), Mistake> {
        if self.take(sign) {
            return Ok(());
        }
        self.wrong(what)
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, Mistake> {
        match self.peek() {
            Some(Token {
                kind: Kind::Name(name),
                ..
            }) => {
                let name = *name;
                self.next += 1;
                Ok(name)
            }
            _ => self.wrong(what),
        }
    }

    fn node(at: usize, op: Op) -> Read {
        let below = |nodes: &[Node]| nodes.iter().map(|node| node.depth).max().unwrap_or(0);
        let depth = 1 + match &op {
            Op::Null
            | Op::Flag(_)
            | Op::Whole(_)
            | Op::Real(_)
            | Op::Text(_)
            | Op::Payload
            | Op::EventType
            | Op::Channels
            | Op::Tags
            | Op::Element(_) => 0,
            Op::List(parts) | Op::All(parts) | Op::Any(parts) => below(parts),
            Op::Field(one, _) | Op::Has(one, _) | Op::Size(one) | Op::Not(one) => one.depth,
            Op::Index(a, b)
            | Op::Compare(_, a, b)
            | Op::In(a, b)
            | Op::Affix(_, a, b)
            | Op::Each(_, a, b) => a.depth.max(b.depth),
        };
        if depth > MAX_DEPTH {
            let what = "the expression has too many levels";
            return Err(Mistake { at, what });
        }
        Ok(Node { op, at, depth })
    }

    /// `a || b || …`, the lowest level; every recursion of the parser comes through here or `unary`.
    fn any(&mut self) -> Read {
        self.nested(|parser| parser.chain("||", Self::every, Op::Any))
    }

    fn every(&mut self) -> Read {
        self.chain("&&", Self::relation, Op::All)
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Read) -> Read {
        if self.nesting == MAX_DEPTH {
            return self.wrong("the expression has too many levels");
        }
        self.nesting += 1;
        let read = read(self);
        self.nesting -= 1;
        read
    }

    fn chain(
        &mut self,
        sign: &str,
        part: impl Fn(&mut Self) -> Read,
        whole: impl FnOnce(Vec<Node>) -> Op,
    ) -> Read {
        let at = self.at();
        let first = part(self)?;
        if !self.take(sign) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.take(sign) {
            parts.push(part(self)?);
        }
        Self::node(at, whole(parts))
    }

    fn relation(&mut self) -> Read {
        let left = self.unary()?;
        let at = self.at();
        if matches!(self.peek(), Some(Token { kind: Kind::Name(name), .. }) if *name == "in") {
            self.next += 1;
            let right = self.unary()?;
            return Self::node(at, Op::In(Box::new(left), Box::new(right)));
        }
        let signs = [
            ("==", Compare::Equal),
            ("!=", Compare::Differs),
            ("<=", Compare::AtMost),
            (">=", Compare::AtLeast),
            ("<", Compare::Less),
            (">", Compare::More),
        ];
        for (sign, compare) in signs {
            if self.take(sign) {
                let right = self.unary()?;
                return Self::node(at, Op::Compare(compare, Box::new(left), Box::new(right)));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Read {
        let at = self.at();
        if self.take("!") {
            let inner = self.nested(Self::unary)?;
            return Self::node(at, Op::Not(Box::new(inner)));
        }
        if self.take("-") {
            let op = match self.peek().map(|token| &token.kind) {
                Some(Kind::Whole(n)) => Op::Whole(-n),
                Some(Kind::Real(n)) => Op::Real(-n),
                Some(Kind::Name(_) | Kind::Text(_) | Kind::Sign(_)) | None => {
                    return self.wrong("a number is wanted behind the minus");
                }
            };
            self.next += 1;
            return Self::node(at, op);
        }
        let mut node = self.primary()?;
        loop {
            let at = self.at();
            if self.take(".") {
                node = self.member(node, at)?;
            } else if self.take("[") {
                let index = self.any()?;
                self.want("]", "a `]` is wanted here")?;
                node = Self::node(at, Op::Index(Box::new(node), Box::new(index)))?;
            } else {
                return Ok(node);
            }
        }
    }

    /// What stands behind a point: a field or a method.
    fn member(&mut self, of: Node, at: usize) -> Read {
        let name = self.name("the name of a field is wanted behind the point")?;
        if !self.take("(") {
            return Self::node(at, Op::Field(Box::new(of), name.into()));
        }
        let op = match name {
            "startsWith" => Op::Affix(Affix::Starts, Box::new(of), Box::new(self.any()?)),
            "endsWith" => Op::Affix(Affix::Ends, Box::new(of), Box::new(self.any()?)),
            "contains" => Op::Affix(Affix::Contains, Box::new(of), Box::new(self.any()?)),
            "size" => Op::Size(Box::new(of)),
            "exists" | "all" => {
                let element = self.name("the name of the element is wanted here")?;
                self.want(",", "a `,` is wanted here")?;
                self.names.push(element);
                let body = self.any();
                self.names.pop();
                Op::Each(name == "exists", Box::new(of), Box::new(body?))
            }
            _ => {
                let what = "there is no such function";
                return Err(Mistake { at, what });
            }
        };
        self.want(")", "a `)` is wanted here")?;
        Self::node(at, op)
    }

    fn primary(&mut self) -> Read {
        let at = self.at();
        if self.take("(") {
            let inner = self.any()?;
            self.want(")", "a `)` is wanted here")?;
            return Ok(inner);
        }
        if self.take("[") {
            return self.list(at);
        }
        let Some(token) = self.peek().cloned() else {
            return self.wrong("the expression ends too early");
        };
        let op = match token.kind {
            Kind::Sign(_) => return self.wrong("a value is wanted here"),
            Kind::Text(text) => Op::Text(text.into()),
            Kind::Whole(n) => Op::Whole(n),
            Kind::Real(n) => Op::Real(n),
            Kind::Name(name) => {
                self.next += 1;
                return self.named(name, at);
            }
        };
        self.next += 1;
        Self::node(at, op)
    }

    fn list(&mut self, at: usize) -> Read {
        let mut parts = Vec::new();
        while !self.take("]") {
            if !parts.is_empty() {
                self.want(",", "a `,` or `]` is wanted here")?;
            }
            parts.push(self.any()?);
        }
        Self::node(at, Op::List(parts))
    }

    fn named(&mut self, name: &'a str, at: usize) -> Read {
        if let Some(place) = self.names.iter().rposition(|known| *known == name) {
            return Self::node(at, Op::Element(place));
        }
        let op = match name {
            "null" => Op::Null,
            "true" => Op::Flag(true),
            "false" => Op::Flag(false),
            "payload" => Op::Payload,
            "eventType" => Op::EventType,
            "channels" => Op::Channels,
            "tags" => Op::Tags,
            "has" | "size" => {
                self.want("(", "a `(` is wanted here")?;
                let inner = self.any()?;
                self.want(")", "a `)` is wanted here")?;
                match (name, inner.op) {
                    ("has", Op::Field(of, field)) => Op::Has(of, field),
                    ("has", _) => {
                        let what = "`has` takes a field, such as `has(payload.customer)`";
                        return Err(Mistake { at, what });
                    }
                    (_, op) => Op::Size(Box::new(Node { op, ..inner })),
                }
            }
            _ => {
                let what = "there is no such name: payload, eventType, channels, tags, has, size";
                return Err(Mistake { at, what });
            }
        };
        Self::node(at, op)
    }
}
