//! The functions that expressions may call: those in the documentation are those of the program, and each does what its name says.

use std::collections::BTreeSet;

use kuration::inspection::rules::cel::{Expression, Scope};

/// What the parser itself makes of these.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// What the CEL specification has and the library behind the program does not: it is refused by name.
const NOT_THERE: [(&str, &str); 1] = [("dyn", "dyn(1) == 1")];

/// A use of each, which is true.
const USES: &[(&str, &str)] = &[
    ("has", "has({'a': 1}.a) && !has({'a': 1}.b)"),
    ("all", "[1, 2].all(x, x > 0)"),
    ("exists", "[1, 2].exists(x, x == 2)"),
    ("exists_one", "[1, 2].exists_one(x, x == 2)"),
    ("map", "[1, 2].map(x, x * 2) == [2, 4]"),
    ("filter", "[1, 2].filter(x, x > 1) == [2]"),
    ("int", "int('7') == 7"),
    ("uint", "uint(7) == 7u"),
    ("double", "double('0.5') == 0.5"),
    ("string", "string(7) == '7'"),
    ("bytes", "bytes('a') == b'a'"),
    ("size", "size('abc') == 3 && [1, 2].size() == 2 && {'a': 1}.size() == 1"),
    ("timestamp", "timestamp('2026-09-01T00:00:00Z') < now"),
    ("duration", "duration('1h') > duration('59m')"),
    ("getFullYear", "now.getFullYear() == 2026"),
    ("getMonth", "now.getMonth() == 8"),
    ("getDate", "now.getDate() == 2"),
    ("getDayOfMonth", "now.getDayOfMonth() == 1"),
    ("getDayOfWeek", "now.getDayOfWeek() == 3"),
    ("getDayOfYear", "now.getDayOfYear() == 244"),
    ("getHours", "now.getHours() == 3"),
    ("getMinutes", "now.getMinutes() == 4"),
    ("getSeconds", "now.getSeconds() == 5"),
    ("getMilliseconds", "now.getMilliseconds() == 678"),
    ("contains", "'abc'.contains('b')"),
    ("startsWith", "'abc'.startsWith('a')"),
    ("endsWith", "'abc'.endsWith('c')"),
    ("charAt", "'abc'.charAt(1) == 'b'"),
    ("indexOf", "'abc'.indexOf('c') == 2 && [1, 2].indexOf(2) == 1"),
    ("lastIndexOf", "'aba'.lastIndexOf('a') == 2 && [1, 1].lastIndexOf(1) == 1"),
    ("join", "['a', 'b'].join('-') == 'a-b'"),
    ("lowerAscii", "'AbC'.lowerAscii() == 'abc'"),
    ("upperAscii", "'AbC'.upperAscii() == 'ABC'"),
    ("replace", "'aa'.replace('a', 'b') == 'bb'"),
    ("split", "'a,b'.split(',') == ['a', 'b']"),
    ("substring", "'abcd'.substring(1, 3) == 'bc'"),
    ("trim", "' a '.trim() == 'a'"),
    ("reverse", "'abc'.reverse() == 'cba' && [1, 2].reverse() == [2, 1]"),
    ("format", "'%s has %d'.format(['a', 2]) == 'a has 2'"),
    ("strings.quote", "strings.quote('a') == '\"a\"'"),
    ("matches", "'a1'.matches('^[a-z][0-9]$')"),
    ("find", "'a12'.find('[0-9]+') == '12'"),
    ("findAll", "'a1b2'.findAll('[0-9]') == ['1', '2']"),
    ("sum", "[1, 2].sum() == 3"),
    ("min", "[2, 1].min() == 1"),
    ("max", "[2, 1].max() == 2"),
    ("isSorted", "[1, 2].isSorted() && ![2, 1].isSorted()"),
    ("sort", "[2, 1].sort() == [1, 2]"),
    ("first", "[1, 2].first().value() == 1"),
    ("last", "[1, 2].last().value() == 2"),
    ("distinct", "[1, 1, 2].distinct() == [1, 2]"),
    ("flatten", "[[1], [2]].flatten() == [1, 2]"),
    ("slice", "[1, 2, 3].slice(0, 2) == [1, 2]"),
    ("lists.range", "lists.range(3) == [0, 1, 2]"),
    ("sets.contains", "sets.contains([1, 2], [2])"),
    ("sets.equivalent", "sets.equivalent([1, 2], [2, 1])"),
    ("sets.intersects", "sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])"),
    ("math.abs", "math.abs(-2) == 2"),
    ("math.ceil", "math.ceil(1.2) == 2.0"),
    ("math.floor", "math.floor(1.8) == 1.0"),
    ("math.round", "math.round(1.5) == 2.0"),
    ("math.trunc", "math.trunc(-1.9) == -1.0"),
    ("math.sign", "math.sign(-3) == -1"),
    ("math.sqrt", "math.sqrt(9.0) == 3.0"),
    ("math.greatest", "math.greatest(1, 3, 2) == 3"),
    ("math.least", "math.least(1, 3, 2) == 1"),
    ("math.isNaN", "math.isNaN(0.0 / 0.0)"),
    ("math.isInf", "math.isInf(1.0 / 0.0)"),
    ("math.isFinite", "math.isFinite(1.0)"),
    ("math.bitAnd", "math.bitAnd(3, 5) == 1"),
    ("math.bitOr", "math.bitOr(3, 5) == 7"),
    ("math.bitXor", "math.bitXor(3, 5) == 6"),
    ("math.bitNot", "math.bitNot(0) == -1"),
    ("math.bitShiftLeft", "math.bitShiftLeft(1, 3) == 8"),
    ("math.bitShiftRight", "math.bitShiftRight(8, 3) == 1"),
    ("quantity", "quantity('1Gi') == quantity('1024Mi')"),
    ("isQuantity", "isQuantity('1Gi') && !isQuantity('much')"),
    ("sign", "quantity('-1').sign() == -1"),
    ("isInteger", "quantity('2k').isInteger()"),
    ("asInteger", "quantity('2k').asInteger() == 2000"),
    ("asApproximateFloat", "quantity('500m').asApproximateFloat() == 0.5"),
    ("add", "quantity('1k').add(quantity('1k')) == quantity('2k')"),
    ("sub", "quantity('3k').sub(quantity('1k')) == quantity('2k')"),
    (
        "isGreaterThan",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && semver('1.2.0').isGreaterThan(semver('1.1.9'))",
    ),
    (
        "isLessThan",
        "quantity('1G').isLessThan(quantity('1Gi')) && semver('1.1.9').isLessThan(semver('1.2.0'))",
    ),
    (
        "compareTo",
        "quantity('1').compareTo(quantity('1')) == 0 && semver('1.0.0').compareTo(semver('2.0.0')) == -1",
    ),
    ("semver", "semver('1.36.1').major() == 1"),
    ("isSemver", "isSemver('1.36.1') && !isSemver('v1')"),
    ("major", "semver('1.36.2').major() == 1"),
    ("minor", "semver('1.36.2').minor() == 36"),
    ("patch", "semver('1.36.2').patch() == 2"),
    ("ip", "ip('10.0.0.1') == ip('10.0.0.1')"),
    ("isIP", "isIP('10.0.0.1') && !isIP('10.0.0')"),
    ("isIPv4", "isIPv4('10.0.0.1') && !isIPv4('::1')"),
    ("isIPv6", "isIPv6('::1') && !isIPv6('10.0.0.1')"),
    ("ip.isCanonical", "ip.isCanonical('::1') && !ip.isCanonical('0::1')"),
    ("family", "ip('::1').family() == 6"),
    ("isLoopback", "ip('127.0.0.1').isLoopback()"),
    ("isUnspecified", "ip('0.0.0.0').isUnspecified()"),
    ("isGlobalUnicast", "ip('192.0.2.1').isGlobalUnicast()"),
    ("isLinkLocalUnicast", "ip('169.254.0.1').isLinkLocalUnicast()"),
    ("isLinkLocalMulticast", "ip('224.0.0.1').isLinkLocalMulticast()"),
    ("cidr", "cidr('10.0.0.0/8').prefixLength() == 8"),
    ("isCIDR", "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0')"),
    ("isCIDRv4", "isCIDRv4('10.0.0.0/8') && !isCIDRv4('fd00::/8')"),
    ("isCIDRv6", "isCIDRv6('fd00::/8') && !isCIDRv6('10.0.0.0/8')"),
    ("containsIP", "cidr('10.0.0.0/8').containsIP('10.1.2.3')"),
    ("containsCIDR", "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')"),
    ("masked", "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')"),
    ("prefixLength", "cidr('10.0.0.0/8').prefixLength() == 8"),
    ("url", "url('https://a.example/').getScheme() == 'https'"),
    ("isURL", "isURL('https://a.example/') && !isURL('not one')"),
    ("getScheme", "url('https://a.example/').getScheme() == 'https'"),
    ("getHost", "url('https://a.example:8443/').getHost() == 'a.example:8443'"),
    ("getHostname", "url('https://a.example:8443/').getHostname() == 'a.example'"),
    ("getPort", "url('https://a.example:8443/').getPort() == '8443'"),
    ("getEscapedPath", "url('https://a.example/b%20c').getEscapedPath() == '/b%20c'"),
    ("getQuery", "url('https://a.example/?b=c').getQuery() == {'b': ['c']}"),
    ("validate", "format.dns1123Label().validate('A').hasValue()"),
    ("format.named", "format.named('dns1123Label').validate('A').hasValue()"),
    ("format.dns1123Label", "!format.dns1123Label().validate('a-b').hasValue()"),
    ("format.dns1123Subdomain", "!format.dns1123Subdomain().validate('a.b').hasValue()"),
    ("format.dns1035Label", "format.dns1035Label().validate('1a').hasValue()"),
    ("format.qualifiedName", "!format.qualifiedName().validate('a.example/b').hasValue()"),
    ("format.dns1123LabelPrefix", "!format.dns1123LabelPrefix().validate('a-').hasValue()"),
    ("format.dns1123SubdomainPrefix", "!format.dns1123SubdomainPrefix().validate('a.b-').hasValue()"),
    ("format.dns1035LabelPrefix", "!format.dns1035LabelPrefix().validate('a-').hasValue()"),
    ("format.labelValue", "format.labelValue().validate('-a').hasValue()"),
    ("format.uri", "!format.uri().validate('https://a.example/').hasValue()"),
    ("format.uuid", "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()"),
    ("format.byte", "!format.byte().validate('YQ==').hasValue()"),
    ("format.date", "!format.date().validate('2026-09-01').hasValue()"),
    ("format.datetime", "!format.datetime().validate('2026-09-01T00:00:00Z').hasValue()"),
    ("base64.encode", "base64.encode(b'a') == 'YQ=='"),
    ("base64.decode", "base64.decode('YQ==') == b'a'"),
    ("jsonpatch.escapeKey", "jsonpatch.escapeKey('a/b') == 'a~1b'"),
    ("optional.of", "optional.of(1).hasValue()"),
    ("optional.none", "!optional.none().hasValue()"),
    ("hasValue", "optional.of(1).hasValue()"),
    ("value", "optional.of(1).value() == 1"),
    ("or", "optional.none().or(optional.of(1)).value() == 1"),
    ("orValue", "optional.none().orValue(1) == 1"),
];

/// The functions that the documentation lists.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/inspection-rules.md");
    let list = page.split("### Functions\n").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    assert!(list.starts_with("- macros:"), "{list}");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_functions_in_the_documentation_are_those_of_the_program() {
    let program = include_str!("../../src/inspection/rules/cel.rs");
    let list = program.split("const FUNCTIONS: &str = \"").nth(1).unwrap().split("\";").next().unwrap();
    let known = list.split([' ', '\n', '\\']).filter(|word| !word.is_empty());
    let known: BTreeSet<String> = known.chain(MACROS).map(str::to_owned).collect();
    assert!(known.len() > 100, "{}", known.len());
    assert_eq!(documented(), known);
    for (name, expr) in NOT_THERE {
        let refused = Expression::compile(expr).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains(&format!("calls {name}()"))), "{name}");
    }
}

#[test]
fn each_function_evaluates() {
    let used: BTreeSet<String> = USES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!((used.len(), &used), (USES.len(), &documented()));
    let scope = Scope::new("2026-09-02T03:04:05.678Z".parse().unwrap());
    let mut wrong = Vec::new();
    for (name, expr) in USES {
        assert!(expr.contains(name.rsplit('.').next().unwrap()), "{expr} does not use {name}");
        let said =
            Expression::compile(expr).map_err(|error| error.to_string()).and_then(|it| it.holds(&scope));
        if said != Ok(true) {
            wrong.push(format!("{name}: {expr}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn whole_numbers_and_fractions_compare_and_are_never_equal() {
    let scope = Scope::new("2026-09-02T00:00:00Z".parse().unwrap());
    for expr in ["30 < 30.5", "29.5 < 30", "!(31 < 30.5)", "30 != 30.0"] {
        assert_eq!(Expression::compile(expr).unwrap().holds(&scope), Ok(true), "{expr}");
    }
}
