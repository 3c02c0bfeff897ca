//! Where the libraries behind expressions say something else than an API server, and it can be mended from outside: functions
//! that replace theirs, and operators that are calls of functions here. What an API server says of each stands in
//! `tests/inspection/expressions.rs`; what can't be mended stands there too, and in docs/limitations.md.

use std::sync::{Arc, LazyLock};

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, ResolveResult, Value};

/// Operators that are calls of functions here, or of another operator: whole numbers and fractions are never equal to the
/// library's `==`, an absent key is an error to its `.?`, and the least whole number overflows in its `-`.
const INSTEAD: [(&str, &str); 5] = [
    (operators::EQUALS, "@equal"),
    (operators::NOT_EQUALS, "@unequal"),
    (operators::IN, "@within"),
    (operators::NEGATE, "@negative"),
    (operators::OPT_SELECT, operators::OPT_INDEX),
];

/// Reads `text`; the library's own words where it is not CEL.
pub(super) fn read(text: &str) -> Result<IdedExpr, String> {
    if doubled(text) {
        return Err("!! and -- are not read as they should be: use brackets, !(!a)".into());
    }
    let read = Parser::default().enable_optional_syntax(true).parse(text);
    let mut read = read.map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    translate(&mut read);
    Ok(read)
}

/// Whether a sign stands twice where the library reads it as one: it drops every second of them.
fn doubled(text: &str) -> bool {
    let mut rest = text;
    // What stood before: at the start and after an operator or an opening bracket, a minus is a sign.
    let (mut before, mut last) = (' ', ' ');
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let sign = !(before.is_alphanumeric() || matches!(before, '_' | ')' | ']' | '}' | '\'' | '"'));
        match c {
            '!' if last == '!' => return true,
            '-' if last == '-' && sign => return true,
            '\'' | '"' => {
                rest = after_string(rest, c, matches!(last, 'r' | 'R'));
                (before, last) = (c, c);
            }
            '/' if rest.starts_with('/') => rest = rest.split_once('\n').map_or("", |(_, next)| next),
            _ if c.is_whitespace() => {}
            // Of two signs, what stood before the first of them counts.
            '-' => {
                if last == '-' && !sign {
                    before = '-';
                }
                last = '-';
            }
            _ => (before, last) = (c, c),
        }
    }
    false
}

/// What follows a string that `quote` has begun.
fn after_string(text: &str, quote: char, raw: bool) -> &str {
    let three = [quote; 3].iter().collect::<String>();
    let (mut rest, end) = match text.strip_prefix(&three[1..]) {
        Some(long) => (long, three.as_str()),
        None => (text, &three[..1]),
    };
    while !rest.starts_with(end) {
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return "" };
        if c == '\\' && !raw {
            chars.next();
        }
        rest = chars.as_str();
    }
    &rest[end.len()..]
}

fn translate(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Call(call) => {
            if let Some((_, other)) = INSTEAD.iter().find(|(name, _)| *name == call.func_name) {
                (*other).clone_into(&mut call.func_name);
            }
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(translate);
        }
        Expr::Comprehension(all) => {
            let parts = [&mut all.iter_range, &mut all.accu_init, &mut all.loop_cond];
            parts.into_iter().chain([&mut all.loop_step, &mut all.result]).for_each(translate);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(translate),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    translate(&mut entry.key);
                    translate(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => translate(&mut select.operand),
        _ => {}
    }
}

/// All that expressions may call.
pub(super) fn context() -> Context<'static> {
    let mut context = Context::default();
    context.register_all();
    context.add_function("@equal", |a: Value, b: Value| a == b);
    context.add_function("@unequal", |a: Value, b: Value| a != b);
    context.add_function("@within", within);
    context.add_function("@negative", negative);
    context.add_function("dyn", |value: Value| -> ResolveResult { Ok(value) });
    context.add_function("size", size);
    context.add_function("string", string);
    context.add_function("int", int);
    context.add_function("format.named", |name: Arc<String>| {
        plain("format.named", Value::String(name)).map(|format| {
            let named = match format {
                Value::Null => OptionalValue::none(),
                format => OptionalValue::of(format),
            };
            Value::Opaque(Arc::new(named))
        })
    });
    context.add_function("getFullYear", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| it.year().into())
    });
    context.add_function("getMonth", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| i64::from(it.month()) - 1)
    });
    context.add_function("getDate", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| it.day().into())
    });
    context.add_function("getDayOfMonth", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| i64::from(it.day()) - 1)
    });
    context.add_function("getDayOfWeek", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| it.weekday().to_sunday_zero_offset().into())
    });
    context.add_function("getDayOfYear", |this: This<Value>, zone: Arguments| {
        date(&this, &zone, |it| i64::from(it.day_of_year()) - 1)
    });
    context.add_function("getHours", |this: This<Value>, zone: Arguments| {
        time(&this, &zone, 3_600_000, |it| it.hour().into())
    });
    context.add_function("getMinutes", |this: This<Value>, zone: Arguments| {
        time(&this, &zone, 60_000, |it| it.minute().into())
    });
    context.add_function("getSeconds", |this: This<Value>, zone: Arguments| {
        time(&this, &zone, 1000, |it| it.second().into())
    });
    context.add_function("getMilliseconds", |this: This<Value>, zone: Arguments| {
        time(&this, &zone, 1, |it| it.millisecond().into())
    });
    context
}

/// What the library's own `function` says of `it`.
fn plain(function: &str, it: Value) -> ResolveResult {
    static LIBRARY: LazyLock<Context<'static>> = LazyLock::new(|| {
        let mut library = Context::default();
        library.register_all();
        library
    });
    let mut scope = LIBRARY.new_inner_scope();
    scope.add_variable_from_value("it", it);
    let it = IdedExpr { id: 1, expr: Expr::Ident("it".to_owned()) };
    let call = CallExpr { func_name: function.to_owned(), target: None, args: vec![it] };
    Value::resolve(&IdedExpr { id: 2, expr: Expr::Call(call) }, &scope)
}

fn wrong(function: &str, why: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, why.to_string())
}

fn within(one: Value, all: Value) -> Result<bool, ExecutionError> {
    match all {
        Value::List(list) => Ok(list.contains(&one)),
        Value::Map(map) => Ok(map.map.keys().any(|key| Value::from(key) == one)),
        other => Err(wrong("in", format!("{} holds nothing", other.type_of()))),
    }
}

fn negative(value: Value) -> ResolveResult {
    match value {
        Value::Int(whole) => whole.checked_neg().map(Value::Int).ok_or_else(|| wrong("-", "overflow")),
        Value::Float(fraction) => Ok(Value::Float(-fraction)),
        other => Err(wrong("-", format!("of {}", other.type_of()))),
    }
}

/// Of a string, its characters: the library counts bytes.
fn size(This(of): This<Value>) -> ResolveResult {
    let size = match &of {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.map.len(),
        other => return Err(wrong("size", format!("{} has none", other.type_of()))),
    };
    i64::try_from(size).map(Value::Int).map_err(|error| wrong("size", error))
}

fn int(This(of): This<Value>) -> ResolveResult {
    match of {
        Value::Timestamp(time) => Ok(Value::Int(time.timestamp())),
        other => plain("int", other),
    }
}

/// As Go writes them.
fn string(This(of): This<Value>) -> ResolveResult {
    let text = match of {
        Value::Bool(truth) => truth.to_string(),
        Value::Float(fraction) => written(fraction),
        Value::Duration(length) => {
            let nanoseconds = length.num_nanoseconds().ok_or_else(|| wrong("string", "overflow"))?;
            let sign = if nanoseconds < 0 { "-" } else { "" };
            let (whole, part) =
                (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
            format!("{sign}{whole}{}s", decimals(part))
        }
        Value::Timestamp(time) => {
            let part = decimals(time.timestamp_subsec_nanos().into());
            let zone = time.format("%:z").to_string().replace("+00:00", "Z");
            format!("{}{part}{zone}", time.format("%Y-%m-%dT%H:%M:%S"))
        }
        other => return plain("string", other),
    };
    Ok(Value::String(Arc::new(text)))
}

/// The part of a second that is so many nanoseconds.
fn decimals(nanoseconds: u64) -> String {
    let digits = format!(".{nanoseconds:09}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Go's %g in its shortest form.
fn written(fraction: f64) -> String {
    let scientific = format!("{fraction:e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ if fraction.is_infinite() => if fraction < 0.0 { "-Inf" } else { "+Inf" }.to_owned(),
        _ => fraction.to_string(),
    }
}

fn date(this: &This<Value>, zone: &Arguments, field: impl Fn(&Zoned) -> i64) -> ResolveResult {
    let Value::Timestamp(time) = &this.0 else {
        return Err(wrong("time", format!("{} is none", this.0.type_of())));
    };
    let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
    let time = Timestamp::new(time.timestamp(), nanoseconds).map_err(|error| wrong("time", error))?;
    let zone = match zone.0.first() {
        None => TimeZone::UTC,
        Some(Value::String(name)) => {
            self::zone(name).ok_or_else(|| wrong("time", format!("unknown time zone {name}")))?
        }
        Some(other) => return Err(wrong("time", format!("{} is no time zone", other.type_of()))),
    };
    Ok(Value::Int(field(&time.to_zoned(zone))))
}

/// The same of a duration, in units of so many milliseconds.
fn time(this: &This<Value>, zone: &Arguments, unit: i64, field: impl Fn(&Zoned) -> i64) -> ResolveResult {
    match &this.0 {
        Value::Duration(length) => Ok(Value::Int(length.num_milliseconds() / unit)),
        _ => date(this, zone, field),
    }
}

/// A zone by its name, or by how far it is from UTC: +02:00.
fn zone(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minutes = if name.starts_with('-') { -minutes } else { minutes };
    Some(TimeZone::fixed(Offset::from_seconds(hours * 3600 + minutes * 60).ok()?))
}
