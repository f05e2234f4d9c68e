use super::*;

fn of(types: Types) -> Rules {
    Rules { types, ..Rules::default() }
}

fn is(rules: Rules) -> Shape {
    Shape::Is(Box::new(rules))
}

fn object(fields: &[(&str, Shape)], required: &[&str], others: Shape) -> Shape {
    let field = |(name, shape): &(&str, Shape)| ((*name).to_owned(), shape.clone());
    is(Rules {
        fields: fields.iter().map(field).collect(),
        required: required.iter().map(|&name| name.to_owned()).collect(),
        others,
        ..of(Types::OBJECT)
    })
}

fn refused(wide: &Shape, narrow: &Shape) -> String {
    accepts(wide, narrow).unwrap_err().path
}

#[test]
fn wider_types_values_and_bounds_accept_narrower_ones() {
    let end = |at, open| Some(End { at, open });
    let listed = |values: &[&str]| {
        let one_of = values.iter().map(|&value| value.to_owned()).collect();
        is(Rules { one_of: Some(one_of), ..of(Types::STRING) })
    };
    let above = |low| is(Rules { low, ..of(Types::NUMBER) });
    let long = |min, max| is(Rules { length: Count { min, max }, ..of(Types::STRING) });
    for (wide, narrow, path) in [
        (is(of(Types::NUMBER)), is(of(Types::INTEGER)), "/type"),
        (is(of(Types::STRING.or(Types::NULL))), is(of(Types::STRING)), "/type"),
        (listed(&["a", "b"]), listed(&["a"]), "/enum"),
        (is(of(Types::STRING)), listed(&["a"]), "/enum"),
        (above(None), above(end(0.0, false)), "/minimum"),
        (above(end(0.0, false)), above(end(0.0, true)), "/minimum"),
        (above(end(0.0, true)), above(end(1.0, false)), "/minimum"),
        (long(1, Some(9)), long(2, Some(8)), "/minLength"),
        (long(0, None), long(0, Some(8)), "/maxLength"),
        (Shape::Anything, is(of(Types::NULL)), "/type"),
        (is(of(Types::NULL)), Shape::Nothing, ""),
    ] {
        assert_eq!(accepts(&wide, &narrow), Ok(()), "{wide:?} {narrow:?}");
        assert_eq!(refused(&narrow, &wide), path);
        assert_eq!(accepts(&wide, &wide), Ok(()));
    }
    // A bound on what cannot be there bounds nothing.
    let bound = is(Rules { low: end(1.0, false), ..of(Types::ALL) });
    assert_eq!(accepts(&bound, &is(of(Types::STRING))), Ok(()));
}

#[test]
fn fields_are_compared_where_they_are_named_and_where_not() {
    let (text, number) = (is(of(Types::STRING)), is(of(Types::NUMBER)));
    let closed = object(&[("a", text.clone())], &["a"], Shape::Nothing);
    let more = object(&[("a", text.clone()), ("b", number.clone())], &["a"], Shape::Nothing);
    assert_eq!(accepts(&more, &closed), Ok(()), "b was not allowed, so it breaks nobody");
    assert_eq!(refused(&closed, &more), "/properties/b");
    let open = object(&[("a", text.clone())], &["a"], Shape::Anything);
    let typed = object(&[("a", text.clone()), ("b/c", number)], &["a"], Shape::Anything);
    assert_eq!(refused(&typed, &open), "/properties/b~1c/type", "b/c was open to anything");
    assert_eq!(accepts(&open, &typed), Ok(()));
    let asks = object(&[("a", text.clone())], &["a", "b"], Shape::Anything);
    assert_eq!(refused(&asks, &open), "/required");
    assert_eq!(accepts(&open, &asks), Ok(()));
    assert_eq!(refused(&closed, &open), "/additionalProperties");
    let list = |item| is(Rules { item, ..of(Types::ARRAY) });
    assert_eq!(refused(&list(text), &list(Shape::Anything)), "/items/type");
}

#[test]
fn what_cannot_be_told_is_refused_unless_it_is_the_same() {
    let further = |rule: &str| {
        let further = [("pattern".to_owned(), rule.to_owned())].into();
        is(Rules { further, text: format!("p{rule}"), ..of(Types::STRING) })
    };
    assert_eq!(accepts(&further("a"), &further("a")), Ok(()));
    assert_eq!(refused(&further("a"), &further("b")), "/pattern");
    assert_eq!(accepts(&is(of(Types::STRING)), &further("b")), Ok(()), "it only went");
    let unknown = |text: &str| {
        let unknown = Some("patternProperties".to_owned());
        is(Rules { unknown, text: text.to_owned(), ..Rules::default() })
    };
    assert_eq!(accepts(&unknown("a"), &unknown("a")), Ok(()));
    assert_eq!(refused(&unknown("a"), &unknown("b")), "/patternProperties");
    assert_eq!(refused(&is(of(Types::STRING)), &unknown("b")), "/patternProperties");
}

#[test]
fn modes_look_in_their_directions() {
    use Compatibility::{Backward, Forward, Full, None};
    let (wide, narrow) = (is(of(Types::NUMBER)), is(of(Types::INTEGER)));
    for (mode, widen, narrowed) in
        [(None, true, true), (Backward, true, false), (Forward, false, true), (Full, false, false)]
    {
        assert_eq!(check(mode, &wide, &narrow).is_ok(), widen, "{mode:?}");
        assert_eq!(check(mode, &narrow, &wide).is_ok(), narrowed, "{mode:?}");
        assert_eq!(check(mode, &wide, &wide), Ok(()));
    }
    let problem = check(Full, &wide, &narrow).unwrap_err().problem;
    assert_eq!(problem, "what was not allowed now is: not every type is allowed");
}
