# Calls what the query names: function/argument/..., percent-encoded; =5 is the number 5.
def text(value)
  return value.inspect unless value.is_a?(String)

  "\"#{value.b.gsub(/[^ -~]|["\\]/n) { |c| format('\x%02x', c.ord) }}\""
end

run(lambda do |env|
  name, *words = env['QUERY_STRING'].split('/', -1)
  arguments = words.map { |w| w.start_with?('=') ? w[1..].to_i : w.gsub(/%(..)/) { $1.hex.chr } }
  body = begin
    text(UWSGI.send(name, *arguments))
  rescue StandardError => e
    "!#{e.class}"
  end
  [200, { 'Content-Type' => 'text/plain' }, [body]]
end)
