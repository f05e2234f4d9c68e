use super::quoted;

#[test]
fn texts_are_quoted_where_yaml_would_read_something_else() {
    for (text, shown) in [
        ("orders", "orders"),
        ("/orders/1", "/orders/1"),
        ("a-b_c.d", "a-b_c.d"),
        ("", "\"\""),
        ("off", "\"off\""),
        ("No", "\"No\""),
        ("null", "\"null\""),
        ("1.10", "\"1.10\""),
        ("a: b", "\"a: b\""),
        ("*", "\"*\""),
        ("say \"hi\"\\n", "\"say \\\"hi\\\"\\\\n\""),
        ("a\nb", "\"a\\nb\""),
        ("\u{7f}", "\"\\U0000007f\""),
        ("${HOME}", "\"$${HOME}\""),
    ] {
        assert_eq!(quoted(text), shown);
    }
}
