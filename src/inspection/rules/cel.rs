//! Expressions in CEL: compiled once, refused by name where they use what is not there, evaluated over what a rule saw.
//!
//! The functions are those of the CEL specification and the Kubernetes libraries that the crate kube-cel carries
//! (strings, lists, sets, regex, urls, ip, cidr, quantity, semver, format, math, encoders, jsonpatch, named formats).
//! The crate `cel` has no checker: an unknown name would only be met when the evaluation comes across it, which on the day
//! that matters is too late. So names are looked up here, at compile time.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, Program, Value};
use serde_json::Value as Json;

use super::dialect;

/// The variables that an expression may name. `object` is there where it is evaluated for each item.
pub const VARIABLES: [&str; 6] = ["result", "items", "target", "now", "previous", "object"];

/// Fields of what our own probes say that hold a time: CEL sees a timestamp, not a string.
const TIMES: [&str; 4] = ["notAfter", "notBefore", "tlsNotAfter", "lastTransitionTime"];

/// Functions that `cel` and kube-cel register.
const FUNCTIONS: &str = "add asApproximateFloat asInteger base64.decode base64.encode bytes charAt cidr compareTo \
contains containsCIDR containsIP distinct double duration dyn endsWith family find findAll first flatten format format.byte \
format.date format.datetime format.dns1035Label format.dns1035LabelPrefix format.dns1123Label format.dns1123LabelPrefix \
format.dns1123Subdomain format.dns1123SubdomainPrefix format.labelValue format.named format.qualifiedName format.uri \
format.uuid getDate getDayOfMonth getDayOfWeek getDayOfYear getEscapedPath getFullYear getHost getHostname getHours \
getMilliseconds getMinutes getMonth getPort getQuery getScheme getSeconds hasValue indexOf int ip ip.isCanonical isCIDR \
isCIDRv4 isCIDRv6 isGlobalUnicast isGreaterThan isIP isIPv4 isIPv6 isInteger isLessThan isLinkLocalMulticast \
isLinkLocalUnicast isLoopback isQuantity isSemver isSorted isURL isUnspecified join jsonpatch.escapeKey last lastIndexOf \
lists.range lowerAscii major masked matches math.abs math.bitAnd math.bitNot math.bitOr math.bitShiftLeft \
math.bitShiftRight math.bitXor math.ceil math.floor math.greatest math.isFinite math.isInf math.isNaN math.least \
math.round math.sign math.sqrt math.trunc max min minor optional.none optional.of or orValue patch prefixLength quantity \
replace reverse semver sets.contains sets.equivalent sets.intersects sign size slice sort split startsWith string \
strings.quote sub substring sum timestamp trim uint upperAscii url validate value";

/// Why an expression can't be used. Each is the fault of the one who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadExpression {
    /// It is not CEL.
    #[error("{expr:?} does not compile: {why}")]
    Syntax {
        /// As written.
        expr: String,
        /// What the parser says.
        why: String,
    },
    /// It calls a function that is not there.
    #[error("{expr:?} calls {name}(), which is not among the functions listed in docs/inspection-rules.md")]
    Function {
        /// As written.
        expr: String,
        /// The function.
        name: String,
    },
    /// It names a variable that is not there.
    #[error("{expr:?} names {name}; there are {}", VARIABLES.join(", "))]
    Variable {
        /// As written.
        expr: String,
        /// The variable.
        name: String,
    },
}

/// An expression that compiles.
pub struct Expression {
    text: String,
    read: IdedExpr,
    each: bool,
}

impl Expression {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Self, BadExpression> {
        let expr = || text.to_owned();
        let read = dialect::read(text).map_err(|why| BadExpression::Syntax { expr: expr(), why })?;
        let mut names = Names::default();
        names.walk(&read, &mut Vec::new());
        if let Some(name) = names.functions.iter().find(|name| !known_function(name)) {
            return Err(BadExpression::Function { expr: expr(), name: name.clone() });
        }
        if let Some(name) = names.variables.iter().find(|name| !VARIABLES.contains(&name.as_str())) {
            return Err(BadExpression::Variable { expr: expr(), name: name.clone() });
        }
        Ok(Self { text: expr(), read, each: names.variables.iter().any(|name| name == "object") })
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it speaks of `object`: then it is asked of each item by itself.
    pub fn is_for_each(&self) -> bool {
        self.each
    }

    /// What it says; an error where it can't be evaluated or is neither true nor false.
    pub fn holds(&self, scope: &Scope) -> Result<bool, String> {
        self.holds_in(&scope.0)
    }

    /// The same for one item.
    pub fn holds_for(&self, scope: &Scope, object: &Value) -> Result<bool, String> {
        let mut inner = scope.0.new_inner_scope();
        inner.add_variable_from_value("object", object.clone());
        self.holds_in(&inner)
    }

    fn holds_in(&self, context: &Context) -> Result<bool, String> {
        match Value::resolve(&self.read, context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("{:?} is {}, not true or false", self.text, other.type_of())),
            Err(error) => Err(format!("{:?}: {}", self.text, shortened(&error.to_string()))),
        }
    }
}

/// An error of `cel` prints whole values.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn known_function(name: &str) -> bool {
    let operator = name.starts_with(|c: char| !c.is_ascii_alphabetic()) || name == "@in";
    operator || FUNCTIONS.split_whitespace().any(|known| known == name)
}

/// Variables that expressions see.
pub struct Scope(Context<'static>);

impl Scope {
    /// With all functions and `now`.
    pub fn new(now: jiff::Timestamp) -> Self {
        let mut scope = Self(dialect::context());
        scope.set("now", timestamp(&now.to_string()).unwrap_or(Value::Null));
        scope
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.add_variable_from_value(name, value);
    }
}

/// What one of our probes says: its time fields become timestamps.
pub fn ours(json: &Json) -> Value {
    value(json, true)
}

/// An object of the API, as it is.
pub fn theirs(json: &Json) -> Value {
    value(json, false)
}

/// Whole numbers become Int, never UInt: CEL has no arithmetic between the two, and every literal is an Int.
fn value(json: &Json, times: bool) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n),
            (None, Some(n)) => Value::UInt(n),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::String(Arc::new(s.clone())),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(|v| value(v, times)).collect())),
        Json::Object(map) => {
            let entry = |(key, json): (&String, &Json)| {
                let time = times && TIMES.contains(&key.as_str());
                let time = json.as_str().filter(|_| time).and_then(timestamp);
                (Key::from(key.as_str()), time.unwrap_or_else(|| value(json, times)))
            };
            let map: HashMap<Key, Value> = map.iter().map(entry).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// CEL's own function reads it, so no second library of times has to be named here.
fn timestamp(text: &str) -> Option<Value> {
    let program = Program::compile("timestamp(text)").ok()?;
    let mut context = Context::default();
    context.add_variable_from_value("text", text.to_owned());
    program.execute(&context).ok()
}

/// What an expression names, without what its own macros bind.
#[derive(Default)]
struct Names {
    variables: Vec<String>,
    functions: Vec<String>,
}

impl Names {
    fn walk(&mut self, expression: &IdedExpr, bound: &mut Vec<String>) {
        match &expression.expr {
            Expr::Call(call) => {
                // `math.abs(x)` is a call of `abs` on an identifier `math`.
                let space = call.target.as_deref().and_then(|target| match &target.expr {
                    Expr::Ident(name) if !bound.contains(name) => Some(format!("{name}.{}", call.func_name)),
                    _ => None,
                });
                let spaced = space.filter(|name| known_function(name));
                if let (None, Some(target)) = (&spaced, &call.target) {
                    self.walk(target, bound);
                }
                self.functions.push(spaced.unwrap_or_else(|| call.func_name.clone()));
                call.args.iter().for_each(|arg| self.walk(arg, bound));
            }
            Expr::Comprehension(all) => {
                self.walk(&all.iter_range, bound);
                self.walk(&all.accu_init, bound);
                let before = bound.len();
                bound.push(all.iter_var.clone());
                bound.extend(all.iter_var2.clone());
                bound.push(all.accu_var.clone());
                for part in [&all.loop_cond, &all.loop_step, &all.result] {
                    self.walk(part, bound);
                }
                bound.truncate(before);
            }
            Expr::Ident(name) if !name.starts_with('@') && !bound.contains(name) => {
                self.variables.push(name.clone());
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(element, bound)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.walk(&entry.key, bound);
                        self.walk(&entry.value, bound);
                    }
                }
            }
            Expr::Select(select) => self.walk(&select.operand, bound),
            Expr::Struct(made) => self.functions.push(made.type_name.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(expr: &str, result: &Json) -> Result<bool, String> {
        let mut scope = Scope::new("2026-09-01T00:00:00Z".parse().unwrap());
        scope.set("result", ours(result));
        Expression::compile(expr).map_err(|error| error.to_string())?.holds(&scope)
    }

    #[test]
    fn whole_numbers_compare_and_calculate_as_literals_do() {
        let result = json!({"rows": [{"ok": 1}], "used": 95, "most": 100, "rate": 0.5});
        assert_eq!(asked("result.rows[0].ok == 1", &result), Ok(true));
        assert_eq!(asked("result.used * 100 < result.most * 90", &result), Ok(false));
        assert_eq!(asked("result.rate < 1.0", &result), Ok(true));
    }

    #[test]
    fn a_certificates_end_is_a_time() {
        let result = json!({"notAfter": "2026-09-20T00:00:00Z"});
        assert_eq!(asked("result.notAfter - now > duration('720h')", &result), Ok(false));
        assert_eq!(asked("result.notAfter - now > duration('240h')", &result), Ok(true));
    }

    #[test]
    fn the_functions_of_kubernetes_are_there() {
        let nothing = json!({});
        for expr in [
            "quantity('1Gi').isGreaterThan(quantity('500Mi'))",
            "semver('1.36.1').compareTo(semver('1.35.9')) > 0",
            "ip('10.0.0.1').family() == 4",
            "cidr('10.0.0.0/8').containsIP('10.1.2.3')",
            "'v1.36.1'.find('[0-9]+') == '1'",
            "url('https://a.example:8443/x').getPort() == '8443'",
            "[1, 2, 3].sum() == 6 && [3, 1].min() == 1",
            "math.greatest(1, 2) == 2",
            "sets.contains([1, 2], [2])",
            "'a,b'.split(',').size() == 2",
            "format.dns1123Label().validate('a-b').hasValue() == false",
            "has(result.absent) == false",
        ] {
            assert_eq!(asked(expr, &nothing), Ok(true), "{expr}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name_before_it_is_met() {
        let never_reached = "true || frobnicate(result.a)";
        let refused = |expr: &str| Expression::compile(expr).err().map(|error| error.to_string());
        assert!(refused(never_reached).unwrap().contains("calls frobnicate()"));
        assert!(refused("resutl.a == 1").unwrap().contains("names resutl; there are result, items"));
        assert!(refused("result.a ==").unwrap().contains("does not compile"));
        assert_eq!(refused("items.all(x, x.y.exists(z, z == x.name)) && {'a': 1}.size() == 1"), None);
        assert_eq!(refused("items.map(x, x.a).filter(y, y > 1).size() == 0"), None);
    }

    #[test]
    fn an_answer_that_is_neither_true_nor_false_is_an_error() {
        assert!(asked("1 + 1", &json!({})).unwrap_err().contains("not true or false"));
        assert!(asked("result.absent == 1", &json!({})).unwrap_err().contains("absent"));
    }
}
