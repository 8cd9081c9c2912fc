//! One evaluation: a tree and a message to yes, no, or a failure.

use std::cmp::Ordering;

use serde_json::Value;

use super::parse::{Affix, Compare, Node, Op};
use super::{Facts, Failure, FailureKind, MAX_STEPS};

/// A value, borrowed from the message or the expression.
#[derive(Clone)]
enum Val<'a> {
    Null,
    Flag(bool),
    Number(Number),
    Text(&'a str),
    Json(&'a Value),
    Texts(&'a [String]),
    List(Vec<Val<'a>>),
}

/// Numbers compare by what they are worth, whatever their form.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

struct Run<'a> {
    facts: &'a Facts<'a>,
    steps: u32,
    /// Elements of the loops around, outer first.
    elements: Vec<Val<'a>>,
}

/// Evaluates; anything but a truth value is a failure.
pub(super) fn run(program: &Node, facts: &Facts<'_>) -> Result<bool, Failure> {
    let mut run = Run {
        facts,
        steps: 0,
        elements: Vec::new(),
    };
    run.flag(program)
}

impl<'a> Run<'a> {
    fn pay(&mut self, steps: usize, at: usize) -> Result<(), Failure> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(fail(FailureKind::Cost, at));
        }
        Ok(())
    }

    fn flag(&mut self, node: &'a Node) -> Result<bool, Failure> {
        match self.value(node)? {
            Val::Flag(flag) | Val::Json(&Value::Bool(flag)) => Ok(flag),
            Val::Null | Val::Number(_) | Val::Text(_) | Val::Json(_) | Val::Texts(_) => {
                Err(fail(FailureKind::Type, node.at))
            }
            Val::List(_) => Err(fail(FailureKind::Type, node.at)),
        }
    }

    fn value(&mut self, node: &'a Node) -> Result<Val<'a>, Failure> {
        self.pay(1, node.at)?;
        let flag = match &node.op {
            Op::Null => return Ok(Val::Null),
            Op::Flag(flag) => *flag,
            Op::Whole(n) => return Ok(Val::Number(Number::Whole(i128::from(*n)))),
            Op::Real(n) => return Ok(Val::Number(Number::Real(*n))),
            Op::Text(text) => return Ok(Val::Text(text)),
            Op::List(parts) => {
                let list: Result<Vec<_>, _> = parts.iter().map(|part| self.value(part)).collect();
                return Ok(Val::List(list?));
            }
            Op::Payload => {
                let payload = self.facts.payload().map(Val::Json);
                return payload.ok_or_else(|| fail(FailureKind::Payload, node.at));
            }
            Op::EventType => return Ok(Val::Text(self.facts.event_type)),
            Op::Channels => return Ok(Val::Texts(self.facts.channels)),
            Op::Tags => return Ok(Val::Texts(self.facts.tags)),
            Op::Element(place) => {
                let element = self.elements.get(*place).cloned();
                return element.ok_or_else(|| fail(FailureKind::Missing, node.at));
            }
            Op::Field(of, name) => {
                let field = self.field(of, name)?;
                return field.ok_or_else(|| fail(FailureKind::Missing, node.at));
            }
            Op::Index(of, index) => return self.index(of, index, node.at),
            Op::Size(of) => return self.size(of),
            Op::Has(of, name) => self.field(of, name)?.is_some(),
            Op::Not(inner) => !self.flag(inner)?,
            Op::All(parts) => self.settle(parts.iter(), false)?,
            Op::Any(parts) => self.settle(parts.iter(), true)?,
            Op::Compare(compare, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.compare(*compare, &a, &b, node.at)?
            }
            Op::In(one, list) => {
                let (one, list) = (self.value(one)?, self.value(list)?);
                self.is_in(&one, &list, node.at)?
            }
            Op::Affix(affix, of, part) => {
                let (of, part) = (self.text(of)?, self.text(part)?);
                self.pay(of.len() / 32, node.at)?;
                match affix {
                    Affix::Starts => of.starts_with(part),
                    Affix::Ends => of.ends_with(part),
                    Affix::Contains => of.contains(part),
                }
            }
            Op::Each(exists, list, body) => self.each(*exists, list, body, node.at)?,
        };
        Ok(Val::Flag(flag))
    }

    /// `&&` and `||` as in CEL: one part that decides makes up for another that fails.
    fn settle(
        &mut self,
        parts: impl Iterator<Item = &'a Node>,
        decides: bool,
    ) -> Result<bool, Failure> {
        let mut failed = None;
        for part in parts {
            match self.flag(part) {
                Ok(flag) if flag == decides => return Ok(decides),
                Ok(_) => {}
                Err(failure) if failure.kind == FailureKind::Cost => return Err(failure),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(!decides), Err)
    }

    fn each(
        &mut self,
        exists: bool,
        list: &'a Node,
        body: &'a Node,
        at: usize,
    ) -> Result<bool, Failure> {
        let elements: Vec<Val<'a>> = match self.value(list)? {
            Val::List(list) => list,
            Val::Texts(texts) => texts.iter().map(|text| Val::Text(text)).collect(),
            Val::Json(Value::Array(list)) => {
                self.pay(list.len(), at)?; // before memory is taken for them
                list.iter().map(Val::Json).collect()
            }
            Val::Json(Value::Object(map)) => {
                self.pay(map.len(), at)?;
                map.keys().map(|key| Val::Text(key)).collect()
            }
            Val::Null | Val::Flag(_) | Val::Number(_) | Val::Text(_) | Val::Json(_) => {
                return Err(fail(FailureKind::Type, at));
            }
        };
        let mut failed = None;
        for element in elements {
            self.elements.push(element);
            let flag = self.flag(body);
            self.elements.pop();
            match flag {
                Ok(flag) if flag == exists => return Ok(exists),
                Ok(_) => {}
                Err(failure) if failure.kind == FailureKind::Cost => return Err(failure),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(!exists), Err)
    }

    /// A field of an object; `None` if it has none of this name.
    fn field(&mut self, of: &'a Node, name: &str) -> Result<Option<Val<'a>>, Failure> {
        match self.value(of)? {
            Val::Json(Value::Object(map)) => Ok(map.get(name).map(Val::Json)),
            Val::Null | Val::Flag(_) | Val::Number(_) | Val::Text(_) | Val::Json(_) => {
                Err(fail(FailureKind::Type, of.at))
            }
            Val::Texts(_) | Val::List(_) => Err(fail(FailureKind::Type, of.at)),
        }
    }

    fn index(&mut self, of: &'a Node, index: &'a Node, at: usize) -> Result<Val<'a>, Failure> {
        let (of, index) = (self.value(of)?, self.value(index)?);
        let place = match index.number() {
            Some(Number::Whole(n)) => usize::try_from(n).ok(),
            Some(Number::Real(_)) | None => None,
        };
        let found = match (&of, place, index.text()) {
            (Val::Json(Value::Object(map)), _, Some(name)) => map.get(name).map(Val::Json),
            (Val::Json(Value::Array(list)), Some(place), _) => list.get(place).map(Val::Json),
            (Val::Texts(texts), Some(place), _) => texts.get(place).map(|text| Val::Text(text)),
            (Val::List(list), Some(place), _) => list.get(place).cloned(),
            _ => return Err(fail(FailureKind::Type, at)),
        };
        found.ok_or_else(|| fail(FailureKind::Missing, at))
    }

    fn size(&mut self, of: &'a Node) -> Result<Val<'a>, Failure> {
        let value = self.value(of)?;
        let size = match &value {
            Val::Texts(texts) => texts.len(),
            Val::List(list) => list.len(),
            Val::Json(Value::Array(list)) => list.len(),
            Val::Json(Value::Object(map)) => map.len(),
            Val::Null | Val::Flag(_) | Val::Number(_) | Val::Text(_) | Val::Json(_) => {
                let Some(text) = value.text() else {
                    return Err(fail(FailureKind::Type, of.at));
                };
                self.pay(text.len() / 32, of.at)?;
                text.chars().count()
            }
        };
        let size = i128::try_from(size).unwrap_or(i128::MAX);
        Ok(Val::Number(Number::Whole(size)))
    }

    fn text(&mut self, node: &'a Node) -> Result<&'a str, Failure> {
        let value = self.value(node)?;
        value.text().ok_or_else(|| fail(FailureKind::Type, node.at))
    }

    fn compare(
        &mut self,
        compare: Compare,
        a: &Val<'a>,
        b: &Val<'a>,
        at: usize,
    ) -> Result<bool, Failure> {
        match compare {
            Compare::Equal => return self.equal(a, b, at),
            Compare::Differs => return self.equal(a, b, at).map(|equal| !equal),
            Compare::Less | Compare::AtMost | Compare::More | Compare::AtLeast => {}
        }
        let order = match (a.number(), b.number(), a.text(), b.text()) {
            (Some(a), Some(b), _, _) => a.order(b),
            (_, _, Some(a), Some(b)) => {
                self.pay(a.len().min(b.len()) / 32, at)?;
                Some(a.cmp(b))
            }
            _ => return Err(fail(FailureKind::Type, at)),
        };
        Ok(order.is_some_and(|order| match compare {
            Compare::Less => order.is_lt(),
            Compare::AtMost => order.is_le(),
            Compare::More => order.is_gt(),
            Compare::AtLeast => order.is_ge(),
            Compare::Equal | Compare::Differs => false,
        }))
    }

    fn is_in(&mut self, one: &Val<'a>, list: &Val<'a>, at: usize) -> Result<bool, Failure> {
        if let Val::Json(Value::Object(map)) = list {
            let key = one.text().ok_or_else(|| fail(FailureKind::Type, at))?;
            return Ok(map.contains_key(key));
        }
        let Some(count) = list.len() else {
            return Err(fail(FailureKind::Type, at));
        };
        for place in 0..count {
            if let Some(element) = list.element(place)
                && self.equal(one, &element, at)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Values of different types are not equal, and that is no failure.
    fn equal(&mut self, a: &Val<'a>, b: &Val<'a>, at: usize) -> Result<bool, Failure> {
        self.pay(1, at)?;
        if let (Some(a), Some(b)) = (a.number(), b.number()) {
            return Ok(a.order(b) == Some(Ordering::Equal));
        }
        if let (Some(a), Some(b)) = (a.text(), b.text()) {
            self.pay(a.len().min(b.len()) / 32, at)?;
            return Ok(a == b);
        }
        if let (Some(a_len), Some(b_len)) = (a.len(), b.len()) {
            if a_len != b_len {
                return Ok(false);
            }
            for place in 0..a_len {
                if let (Some(a), Some(b)) = (a.element(place), b.element(place))
                    && !self.equal(&a, &b, at)?
                {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        if let (Val::Json(Value::Object(a)), Val::Json(Value::Object(b))) = (a, b) {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, one) in a {
                let Some(other) = b.get(key) else {
                    return Ok(false);
                };
                if !self.equal(&Val::Json(one), &Val::Json(other), at)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        Ok(match (a.flag(), b.flag()) {
            (Some(a), Some(b)) => a == b,
            _ => a.is_null() && b.is_null(),
        })
    }
}

impl<'a> Val<'a> {
    fn number(&self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Json(Value::Number(number)) => number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .map(Number::Whole)
                .or_else(|| number.as_f64().map(Number::Real)),
            Self::Null | Self::Flag(_) | Self::Text(_) | Self::Json(_) => None,
            Self::Texts(_) | Self::List(_) => None,
        }
    }

    const fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(Value::String(text)) => Some(text.as_str()),
            Self::Null | Self::Flag(_) | Self::Number(_) | Self::Json(_) => None,
            Self::Texts(_) | Self::List(_) => None,
        }
    }

    const fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) | Self::Json(Value::Bool(flag)) => Some(*flag),
            Self::Null | Self::Number(_) | Self::Text(_) | Self::Json(_) => None,
            Self::Texts(_) | Self::List(_) => None,
        }
    }

    const fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::Json(Value::Null))
    }

    /// Elements of a list; `None` if it is none.
    const fn len(&self) -> Option<usize> {
        match self {
            Self::Texts(texts) => Some(texts.len()),
            Self::List(list) => Some(list.len()),
            Self::Json(Value::Array(list)) => Some(list.len()),
            Self::Null | Self::Flag(_) | Self::Number(_) | Self::Text(_) | Self::Json(_) => None,
        }
    }

    fn element(&self, place: usize) -> Option<Self> {
        match self {
            Self::Texts(texts) => texts.get(place).map(|text| Val::Text(text)),
            Self::List(list) => list.get(place).cloned(),
            Self::Json(Value::Array(list)) => list.get(place).map(Val::Json),
            Self::Null | Self::Flag(_) | Self::Number(_) | Self::Text(_) | Self::Json(_) => None,
        }
    }
}

impl Number {
    /// Exact, also where a double cannot hold the whole number.
    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Real(a), Self::Real(b)) => a.partial_cmp(&b),
            (Self::Whole(a), Self::Real(b)) => whole_and_real(a, b),
            (Self::Real(a), Self::Whole(b)) => whole_and_real(b, a).map(Ordering::reverse),
        }
    }
}

/// 2^65: beyond every whole number of JSON.
const BEYOND: f64 = 36_893_488_147_419_103_232.0;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the whole part of a double below 2^65 fits into 128 bits"
)]
fn whole_and_real(whole: i128, real: f64) -> Option<Ordering> {
    if real.is_nan() {
        return None;
    }
    if real.abs() >= BEYOND {
        return Some(if real > 0.0 {
            Ordering::Less
        } else {
            Ordering::Greater
        });
    }
    let floor = real.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order.is_eq() && real > floor {
        Ordering::Less
    } else {
        order
    })
}

const fn fail(kind: FailureKind, at: usize) -> Failure {
    Failure { kind, at }
}
