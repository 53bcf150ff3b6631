<?php
// Calls what the query names: function/argument/..., percent-encoded; =5 is the number 5, [] the session.
header('Content-Type: text/plain');

function text($value) {
    if (!is_string($value)) return $value === null ? 'nil' : json_encode($value);
    return '"' . preg_replace_callback('/[^ -~]|["\\\\]/', fn($m) => sprintf('\x%02x', ord($m[0])), $value) . '"';
}

function argument($word) {
    return $word[0] === '=' ? (int) substr($word, 1) : rawurldecode($word);
}

function session($id, $change) {
    session_id($id);
    session_start();
    if ($change === 'destroy') return session_destroy();
    if ($change === 'count') $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    if ($change === 'fill') $_SESSION['text'] = str_repeat('x', 40);
    $answer = $_SESSION;
    session_write_close();
    return $answer;
}

$words = explode('/', $_SERVER['QUERY_STRING']);
$name = array_shift($words);
try {
    $function = $name === 'session' ? $name : "uwsgi_$name";
    echo text($function(...array_map('argument', $words)));
} catch (Throwable $error) {
    echo '!', get_class($error);
}
