// The description of the service, as people read it.
const here = new URL("./", location.href).href;
const make = (tag, text = "", ...inside) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...inside);
  return node;
};
document.getElementById("shell").textContent = `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' '${here}predict?conf=0.5'
curl -F file=@a.jpg -F file=@b.jpg '${here}predict'
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' '${here}predict?format=overlay' > overlay.png`;
document.getElementById("python").textContent = `import json, urllib.request

with open("photo.jpg", "rb") as file:
    request = urllib.request.Request("${here}predict", file.read(), {"Content-Type": "image/jpeg"})
print(json.load(urllib.request.urlopen(request)))`;

const token = sessionStorage.getItem("token");
const reply = await fetch("openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
const place = document.getElementById("paths");
if (!reply.ok) place.append(make("p", "Open the page to try it first, and give it the token of this service."));
const { paths = {} } = reply.ok ? await reply.json() : {};
const table = (rows) => make("table", "", ...rows.map((row) => make("tr", "", ...row.map((cell) => make("td", cell)))));
for (const [path, ways] of Object.entries(paths)) {
  for (const [way, told] of Object.entries(ways)) {
    place.append(make("h2", `${way.toUpperCase()} ${path}`), make("p", told.summary || ""));
    if (told.parameters) {
      place.append(make("h3", "Options"), table(told.parameters.map((one) => [one.name, one.schema.title || "", one.description])));
    }
    place.append(make("h3", "Answers"), table(Object.entries(told.responses).map(([status, one]) => [status, one.description])));
    const example = told.responses["200"]?.content?.["application/json"]?.example;
    if (example) place.append(make("pre", JSON.stringify(example, null, 2)));
  }
}
