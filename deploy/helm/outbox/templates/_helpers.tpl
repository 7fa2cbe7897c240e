{{- define "outbox.name" -}}
{{ contains "outbox" .Release.Name | ternary .Release.Name (printf "%s-outbox" .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select: (dict "root" $ "part" "api"). */}}
{{- define "outbox.selector" -}}
app.kubernetes.io/name: outbox
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "outbox.labels" -}}
{{ include "outbox.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "outbox.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What every container of ours has: (dict "root" $ "keys" true). */}}
{{- define "outbox.container" -}}
image: {{ include "outbox.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "outbox.name" .root }}}
env:
  {{- range $name, $from := .root.Values.secrets }}
  {{- if and $from.name (or $.keys (ne $name "admin_key")) }}
  - {name: OUTBOX_{{ upper $name }}_FILE, value: /run/secrets/outbox/{{ $name }}}
  {{- end }}
  {{- end }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - {name: secrets, mountPath: /run/secrets/outbox, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* What every pod of ours has: (dict "root" $ "part" "api" "keys" true). */}}
{{- define "outbox.pod" -}}
serviceAccountName: {{ include "outbox.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range $name, $from := .root.Values.secrets }}
        {{- if and $from.name (or $.keys (ne $name "admin_key")) }}
        - secret:
            name: {{ $from.name }}
            items: [{key: {{ $from.key | quote }}, path: {{ $name }}}]
        {{- end }}
        {{- end }}
{{- end }}

{{/* Pods wait here until the database is migrated: no hook, so nothing waits for itself. */}}
{{- define "outbox.waiting" -}}
- name: wait
  args: [migrate, --check, --phase, pre, --wait, {{ .Values.migrations.waitSeconds | int | toString | quote }}]
  resources: {{ toYaml .Values.migrations.resources | nindent 4 }}
  {{- include "outbox.container" (dict "root" . "keys" false) | nindent 2 }}
{{- end }}

{{- define "outbox.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "outbox.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "outbox.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A drain that the kubelet would cut off: (dict "name" "api" "grace" 45 "need" 42). */}}
{{- define "outbox.grace" -}}
{{- if lt (float64 .grace) (float64 .need) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %v: the drain (settings.drain_s), with what is before and after it, takes up to %v s and would be cut off." .name .grace .need) -}}
{{- end -}}
{{ .grace | int }}
{{- end }}
